"""The results of finished kills: stored once, countersigned, and told by every Core alike.

A result *stands* in a region when the hold is in force and lies in the region's stream, a Core of
the region that acts has signed it, all its receipts hold, and it is of this period of the hold.
Then it is the answer, whoever is asked. A result of another region becomes this region's only where
the own facts say *complete*, too: a Core that lies makes no other region say so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Final

from kcm_bus.clock import Clock
from kcm_bus.membership import Membership
from kcm_bus.ports import Messages
from kcm_bus.switch import KillSwitch
from kcm_control.boots import Key
from kcm_control.completeness import Arrival
from kcm_control.concluding import conclude, concluded_of, earliest, of_this_period, told
from kcm_control.holds import HoldRecord
from kcm_schemas import subjects
from kcm_schemas.admin import Concluded, HoldStatus
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.signed import SIGNATURES_MAX, Kind
from kcm_trust.resulting import accounted, finished
from kcm_trust.verify import SignedResult, Untrusted, Verifier

from kcm_core.result_cache import ResultCache
from kcm_core.result_store import ResultStore

log = logging.getLogger(__name__)

SIGNERS_WANTED: Final = 2
"""Cores of a region that sign a result: when one of them leaves, it stands all the same."""

TRIES: Final = 4
"""Writes of a result that others write, too: each time one of them gets further."""

SLICE: Final = 16
"""Receipts that are checked in one go: some 2 ms, and then somebody else has a turn."""


class Results:
    """One Core's way to the results of its region."""

    def __init__(
        self,
        *,
        membership: Membership,
        store: ResultStore,
        control_bus: Messages,
        switch: KillSwitch,
        clock: Clock,
    ) -> None:
        self._me: Final = membership
        self._store: Final = store
        self._bus: Final = control_bus
        self._switch: Final = switch
        self._clock: Final = clock
        self._told: Final = ResultCache()
        """What this Core told, or read, and the store may have lost."""
        self._offered: Final = ResultCache()
        """What other regions said, to be taken once the own facts say the same."""
        self._checked: tuple[Verifier, ResultCache] = (membership.verifier, ResultCache())
        """Results whose receipts were all checked, and the roster by which."""

    async def standing(self, record: HoldRecord, status: HoldStatus) -> HoldStatus | None:
        """The status of a finished kill as its result has it; ``None`` when no result stands.

        Adds the own signature where too few Cores of the region have signed it.
        """
        hold_id, unstored = record.hold.id, ""
        place = await self._switch.looked_up(hold_id)
        if not place:
            return None
        found = None
        try:
            found = await self._stored(hold_id, place)
        except KcmError as error:
            unstored = _why(error, "read")
        if found is not None and self._lies(found, place):
            return told(status, found.result, "")
        kept = self._told.get(hold_id)
        known = None if kept is None else await self._verified(hold_id, kept.raw)
        if known is None or not self._counts(known, place) or not self._lies(known, place):
            return None
        if not unstored:
            known, unstored = await self._write(known, place)
            if not unstored:
                await self._tell(known)
        return told(status, known.result, unstored)

    async def conclude(
        self,
        record: HoldRecord,
        status: HoldStatus,
        receipts: Mapping[Key, Arrival],
        heard_s: float,
        offered: Iterable[bytes],
    ) -> HoldStatus:
        """The status of a kill that this Core found complete: the earliest result is stored.

        Where that fails the kill is complete all the same, and the status says why.
        """
        now_s, now_ms = self._clock.elapsed(), self._clock.unix_ms()
        try:
            own = conclude(
                status,
                receipts,
                region=self._me.region,
                instance=self._me.name,
                heard_ms=max(0, now_ms - int(1000 * (now_s - heard_s))),
                now_ms=now_ms,
                roster=self._me.rosters.version,
            )
            mine = self._me.verifier.result(encode(self._me.identity.sign(Kind.RESULT, own)))
        except (KcmError, Untrusted) as error:
            return status.model_copy(update={"unstored": str(error)})
        place = await self._switch.looked_up(record.hold.id)
        others = await self._believed(record.hold.id, place, offered)
        if not place:
            return status.model_copy(update={"unstored": "the hold is being written anew"})
        first = earliest([mine.result, *(one.result for one in others)])
        chosen = next(one for one in (*others, mine) if one.result == first)
        stored, unstored = await self._write(chosen, place)
        if not unstored:
            self._offered.forget(record.hold.id)
        if stored.result == own and not unstored:
            await self._tell(stored)
        return told(status, stored.result, unstored)

    async def of_lifted(self, hold_id: bytes, status: HoldStatus) -> HoldStatus:
        """The status of a lift, with the result of the kill that it ended, if that was stored."""
        try:
            entry = await self._store.read(hold_id)
            found = None if entry is None else await self._verified(hold_id, entry.data)
        except KcmError as error:
            return status.model_copy(update={"unstored": _why(error, "read")})
        found = found or self._told.get(hold_id)
        if found is None:
            return status
        self._told.keep(found)
        return told(status, found.result, "")

    async def signed(self, hold_id: bytes, concluded: Concluded | None) -> bytes:
        """The result that a status told, as it was signed; empty when it told none."""
        known = self._told.get(hold_id)
        if concluded is None or known is None or concluded_of(known.result) != concluded:
            return b""
        return known.raw

    async def offer(self, hold_id: bytes, place: int) -> bytes:
        """What another region gets that asks for a hold: the result, if one stands here."""
        try:
            entry = await self._store.read(hold_id)
        except KcmError:
            return b""
        found = None if entry is None else await self._verified(hold_id, entry.data)
        return found.raw if found is not None and self._stands(found, place) else b""

    def heard(self, raw: bytes, source: str) -> SignedResult | None:
        """A result that a Core of ``source`` sends; ``None`` when it says nothing new.

        Raises ``Untrusted``. Its receipts are checked when it is taken.
        """
        found = self._me.verifier.result(raw)
        if found.result.region != source or not found.acting_in(source):
            raise Untrusted("a result in the name of another region")
        hold_id = found.result.hold_id
        known = (self._told.get(hold_id), self._offered.get(hold_id))
        if any(one is not None and one.result == found.result for one in known):
            return None
        self._offered.keep(found)
        return found

    async def _stored(self, hold_id: bytes, place: int) -> SignedResult | None:
        """What the region has stored, if it stands, with the own signature where it is wanted."""
        entry = await self._store.read(hold_id)
        found = None if entry is None else await self._verified(hold_id, entry.data)
        if entry is None or found is None or not self._stands(found, place):
            return None
        self._told.keep(found)
        signed = found.acting_in(self._me.region)
        if len(signed) < SIGNERS_WANTED and self._me.name not in signed:
            more = self._countersigned(found)
            try:
                await self._store.write(hold_id, more.raw, entry.sequence)
                self._told.keep(more)
            except KcmError as error:
                log.warning("a result is not countersigned: %s", _why(error, "written"))
        return found

    async def _write(self, chosen: SignedResult, place: int) -> tuple[SignedResult, str]:
        """Store a result unless one stands there; which one is told, and why it is not stored."""
        hold_id, unstored = chosen.result.hold_id, "other Cores are writing it at this moment"
        for _ in range(TRIES):
            try:
                entry = await self._store.read(hold_id)
                found = None if entry is None else await self._verified(hold_id, entry.data)
                if found is not None and self._counts(found, place):
                    if self._stands(found, place):
                        self._told.keep(found)
                        return found, ""
                    # Whoever signed it here has left: it stays what it is, signed by who acts.
                    first = earliest([chosen.result, found.result])
                    chosen = found if first == found.result else chosen
                more = self._countersigned(chosen)
                await self._store.write(hold_id, more.raw, 0 if entry is None else entry.sequence)
                self._told.keep(more)
            except KcmError as error:
                if error.code is not Code.CONFLICT:
                    unstored = _why(error, "written")
                    break
            else:
                return more, ""
        self._told.keep(chosen)
        return chosen, unstored

    async def _believed(
        self, hold_id: bytes, place: int, offered: Iterable[bytes]
    ) -> list[SignedResult]:
        """What other regions offer of this period of a hold."""
        heard = self._offered.get(hold_id)
        found = []
        known = [heard.raw] if heard else []
        for raw in sorted({*offered, *known}):
            one = await self._verified(hold_id, raw) if raw else None
            if one is not None and self._counts(one, place):
                found.append(one)
        return found

    async def _verified(self, hold_id: bytes, raw: bytes) -> SignedResult | None:
        """A result of this hold that is signed, finished and accounted for; else ``None``."""
        verifier = self._me.verifier
        if self._checked[0] is not verifier:
            self._checked = (verifier, ResultCache())
        checked = self._checked[1]
        known = checked.get(hold_id)
        if known is not None and known.raw == raw:
            return known
        try:
            found = verifier.result(raw)
            if found.result.hold_id != hold_id:
                raise Untrusted("the result of another hold")
            finished(found.result)
            receipts = []
            for count, one in enumerate(found.result.receipts, 1):
                receipts.append(verifier.receipt_once(one))
                if count % SLICE == 0:
                    await asyncio.sleep(0)
            accounted(found.result, receipts)
        except Untrusted as error:
            log.warning("a result of a kill is not believed: %s", error)
            return None
        checked.keep(found)
        return found

    def _counts(self, found: SignedResult, place: int) -> bool:
        roster = self._me.rosters.version
        return of_this_period(found.result, self._me.region, place, roster)

    def _lies(self, found: SignedResult, place: int) -> bool:
        """Whether the hold lies where it lay: who began while it did not may not have read it.

        Where it was written again the facts have to say *complete* once more.
        """
        mine = [one for one in found.result.regions if one.region == self._me.region]
        return all(one.durable_at == place for one in mine)

    def _stands(self, found: SignedResult, place: int) -> bool:
        return self._counts(found, place) and bool(found.acting_in(self._me.region))

    def _countersigned(self, found: SignedResult) -> SignedResult:
        """With the own signature; those of other regions make room where there are too many."""
        names = {one.instance for one in found.signers} | {self._me.name}
        counted = self._me.identity.countersign(found.statement).signatures
        own = set(found.acting_in(self._me.region)) | {self._me.name}
        ordered = sorted(counted, key=lambda one: (one.signer not in own, one.signer))
        kept = [one for one in ordered if one.signer in names][:SIGNATURES_MAX]
        statement = found.statement.model_copy(
            update={"signatures": sorted(kept, key=lambda one: one.signer)}
        )
        return self._me.verifier.result(encode(statement))

    async def _tell(self, stored: SignedResult) -> None:
        """Tell every Core of every region of a new result."""
        subject = subjects.receipt(self._me.region, stored.result.hold_id)
        try:
            await self._bus.publish(subject, stored.raw)
        except KcmError as error:
            log.warning("a result could not be sent: %s", error.code.value)


def _why(error: KcmError, done: str) -> str:
    return f"the result could not be {done}: {error.detail or error.code.value}"
