"""The results of finished kills: stored once, countersigned, and the same from every Core.

A result is *valid* in a region (``ResultChecks.stands``) when the hold is in force and in the
region's stream, an active Core of the region has signed the result, all its receipts verify, and it
is of this period of the hold. Then it is the answer of every Core. Compare-and-set decides which
result of a region is valid. A result is *concluded* once it is stored: a Core that reports one
before that also reports why it is not stored, and tries again.

A Core *relies* on a result that it has signed itself, or has reported before. It reports and
countersigns a result of other Cores, in any region, only if its own facts say *complete*, too, and
contain no incarnation that the result leaves out: a Core that lies cannot make another one confirm
it. If the store shows another result than the one that it had, the first of the two stays.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from kcm_runtime.host import Host
from kcm_runtime.logs import fields
from kcm_runtime.nats.ports import Entry, PubSub
from kcm_schemas import subjects
from kcm_schemas.admin.kill_status import Concluded, HoldStatus
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.kill_result import Result
from kcm_schemas.signed import Kind
from kcm_trust.result_statements import timely
from kcm_trust.verify import SignedResult, Untrusted

from kcm_killswitch.coordinator.reported_results import ReportedResults
from kcm_killswitch.coordinator.result_checks import Places, ResultChecks
from kcm_killswitch.coordinator.result_store import ResultStore
from kcm_killswitch.model.completeness import Arrival, RegionFacts
from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.incarnations import Key
from kcm_killswitch.model.kill_result import conclude, covers, earliest, told
from kcm_killswitch.replica.killswitch import KillSwitch

log = logging.getLogger(__name__)

SIGNERS_WANTED: Final = 4
"""Number of Cores of a region that sign a result; at most eight Cores sign one at all.

So the result stays valid when one leaves, and a signer still relies on it after a restart.
"""

TRIES: Final = 4
"""Attempts to write a result that other Cores write, too: in each round one of them succeeds."""

ANOTHER: Final = "another result is stored, which the facts known here do not bear out"
"""Why a result is not stored beside another Core's; that one may be true, but is not reported."""

Facts = Mapping[str, RegionFacts | None]


class Results:
    """The interface of one Core to the results of its region."""

    def __init__(
        self, host: Host, *, store: ResultStore, control_bus: PubSub, switch: KillSwitch
    ) -> None:
        self._me: Final = host.me
        self._store: Final = store
        self._bus: Final = control_bus
        self._switch: Final = switch
        self._clock: Final = host.clock
        self.checks: Final = ResultChecks(host.me)
        self.reported: Final = ReportedResults(self.checks)

    async def standing(self, state: HoldState, status: HoldStatus) -> HoldStatus | None:
        """The status of a finished kill from its result; ``None`` if the facts have to decide.

        Adds the signature of this Core if too few Cores of the region have signed the result.
        """
        hold_id, unstored = state.hold.id, ""
        place = await self._switch.looked_up(hold_id)
        if not place:
            return None
        places = {self._me.region: place}
        entry, found = None, None
        try:
            entry, found = await self._read(hold_id)
        except KcmError as error:
            unstored = _why(error, "read")
        if found is not None and not self.checks.belongs(found, places):
            found = None
        known = await self.reported.in_place_of(found, hold_id, places)
        if found is not None and known is None:
            if not (self.reported.relies_on(found) and self.checks.lies(found, places)):
                return None
            await self._take(found, entry)
            return told(status, found.result, "")
        if known is None:
            return None
        if not unstored:
            known, unstored = await self._write(known, places)
            if unstored == ANOTHER:
                return None
            if not unstored:
                await self._tell(known)
        return told(status, known.result, unstored)

    async def kept(self, state: HoldState, status: HoldStatus) -> HoldStatus:
        """The status of a kill that the present facts do not show complete.

        If this Core found the kill complete before, it remains complete.
        """
        hold_id = state.hold.id
        places = {self._me.region: await self._switch.looked_up(hold_id)}
        known = await self.reported.in_place_of(None, hold_id, places)
        return status if known is None else told(status, known.result, ANOTHER)

    async def conclude(
        self,
        state: HoldState,
        status: HoldStatus,
        receipts: Mapping[Key, Arrival],
        heard_s: float,
        facts: Facts,
        offered: Iterable[bytes],
    ) -> HoldStatus:
        """The status of a kill that this Core found complete, with the result that is stored.

        A result that this Core has reported has priority, then one of another region. If storing
        fails, the kill is complete nevertheless, and the status says why the result is not stored.
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
            timely(own, state.hold)
            mine = self._me.verifier.result(encode(self._me.identity.sign(Kind.RESULT, own)))
        except (KcmError, Untrusted) as error:
            return status.model_copy(update={"unstored": str(error)})
        hold_id = state.hold.id
        place = await self._switch.looked_up(hold_id)
        if not place:
            return status.model_copy(update={"unstored": "the hold is being written again"})
        places = {name: one.durable_at for name, one in facts.items() if one is not None}
        places[self._me.region] = place
        others = await self._believed(hold_id, places, offered)

        def borne_out(result: Result) -> bool:
            return self.checks.timely(result, state, now_ms) and covers(result, status, facts)

        others = [one for one in others if borne_out(one.result)]
        before = await self.reported.in_place_of(None, hold_id, places)
        if before is not None:
            others, mine = [], before
        first = earliest([one.result for one in others] or [mine.result])
        chosen = next(one for one in (*others, mine) if one.result == first)
        stored, unstored = await self._write(chosen, places, borne_out)
        if stored.result == mine.result and not unstored:
            await self._tell(stored)
        return told(status, stored.result, unstored)

    async def of_lifted(self, hold_id: bytes, status: HoldStatus) -> HoldStatus:
        """The status of a lift, with the result of the kill that it ended, if there is one.

        Another Core's result is reported, and not countersigned: there are no facts any more.
        """
        known, unstored = self.reported.get(hold_id), ""
        try:
            entry, found = await self._read(hold_id)
            if found is not None and not self.checks.was_ours(found):
                found = None
            if known is not None and (found is None or self.reported.goes_before(known, found)):
                found = await self._put(known, entry)
            elif found is not None:
                self.reported.keep(found)
        except KcmError as error:
            found, unstored = None, _why(error, "read or written")
        found = found or known
        if found is None:
            return status.model_copy(update={"unstored": unstored})
        return told(status, found.result, unstored)

    def signed(self, hold_id: bytes, concluded: Concluded | None) -> bytes:
        """The signed result that a status reported; empty if it reported none."""
        return self.reported.signed(hold_id, concluded)

    async def offer(self, hold_id: bytes, place: int) -> bytes:
        """The result for another region that asks for a hold, if one is valid here; else empty."""
        try:
            _, found = await self._read(hold_id)
        except KcmError:
            return b""
        places = {self._me.region: place}
        return found.raw if found is not None and self.checks.stands(found, places) else b""

    def heard(self, raw: bytes, source: str) -> SignedResult | None:
        """Take a result from a Core of region ``source``; ``None`` if it is not new.

        Raises ``Untrusted``. The result is only a hint to check the kill: this Core asks for the
        facts that count.
        """
        found = self._me.verifier.result(raw)
        if found.result.region != source or not found.acting_in(source):
            raise Untrusted("a result in the name of another region")
        if not found.by_author:
            raise Untrusted("a result in the name of another Core")
        known = self.reported.get(found.result.hold_id)
        return None if known is not None and known.result == found.result else found

    async def _read(self, hold_id: bytes) -> tuple[Entry | None, SignedResult | None]:
        """The entry that the region has stored, and the result in it, if that is accepted."""
        entry = await self._store.read(hold_id)
        found = None if entry is None else await self.checks.verified(hold_id, entry.data)
        return entry, found

    async def _take(self, found: SignedResult, entry: Entry | None) -> None:
        """Adopt the stored result as the reported one, and add this Core's signature if needed.

        The caller passes only a result on which this Core relies, or which its facts confirm.
        """
        self.reported.relied.keep(found, stored=True)
        try:
            await self._sign(found, entry)
        except KcmError as error:
            log.warning(
                "the stored result of a kill is not countersigned until the kill is checked "
                "again: %s",
                error.detail,
                extra=fields(
                    hold=found.result.hold_id,
                    region=found.result.region,
                    instance=found.result.instance,
                    code=error.code.value,
                ),
            )

    async def _sign(self, found: SignedResult, entry: Entry | None) -> None:
        """Add the signature of this Core while other Cores add theirs; raises ``KcmError``."""
        result = found.result
        for _ in range(TRIES):
            signed = found.acting_in(self._me.region)
            if len(signed) >= SIGNERS_WANTED or self._me.name in signed:
                return
            try:
                await self._put(found, entry)
            except KcmError as error:
                if error.code is not Code.CONFLICT:
                    raise
            else:
                return
            entry, again = await self._read(result.hold_id)
            if again is None or again.result != result:
                return
            found = again

    async def _put(self, chosen: SignedResult, over: Entry | None) -> SignedResult:
        """Store a countersigned result over the entry that was read; raises ``KcmError``."""
        more = self.checks.countersigned(chosen)
        await self._store.write(more.result.hold_id, more.raw, 0 if over is None else over.sequence)
        self.reported.relied.keep(more, stored=True)
        return more

    async def _write(
        self,
        chosen: SignedResult,
        places: Places,
        borne_out: Callable[[Result], bool] = lambda _: False,
    ) -> tuple[SignedResult, str]:
        """Store a result unless a valid one is stored; the one to report, and why it is not stored.

        ``borne_out`` says whether the facts here are complete, and contain no incarnation that a
        result lacks. A valid result without that is left in place, and not reported; but a result
        that was stored first, and on which this Core relies, replaces it.
        """
        hold_id, unstored = chosen.result.hold_id, "other Cores are writing it at this moment"
        for _ in range(TRIES):
            try:
                entry, found = await self._read(hold_id)
                if found is not None and self.checks.counts(found, places):
                    known = self.reported.get(hold_id)
                    ours = known is not None and known.result == chosen.result
                    stands, ours_once = (
                        self.checks.stands(found, places),
                        self.checks.was_ours(found),
                    )
                    if ours and self.reported.goes_before(chosen, found):
                        pass
                    elif self.reported.relies_on(found) or borne_out(found.result):
                        if stands:
                            await self._take(found, entry)
                            return self.reported.get(hold_id) or found, ""
                        if ours_once:
                            # Its signer in this region has left: an active Core signs it now.
                            chosen = found
                    elif ours_once and not (ours and self.reported.relied.is_stored(hold_id)):
                        unstored = ANOTHER
                        break
                return await self._put(chosen, entry), ""
            except KcmError as error:
                if error.code is not Code.CONFLICT:
                    unstored = _why(error, "written")
                    break
        self.reported.relied.keep(chosen, stored=False)
        return chosen, unstored

    async def _believed(
        self, hold_id: bytes, places: Places, offered: Iterable[bytes]
    ) -> list[SignedResult]:
        """Results that other regions offer of this period, signed where they were concluded."""
        found = []
        for raw in sorted({one for one in offered if one}):
            one = await self.checks.verified(hold_id, raw)
            if one is None or not self.checks.counts(one, places):
                continue
            if one.acting_in(one.result.region):
                found.append(one)
        return found

    async def _tell(self, stored: SignedResult) -> None:
        """Send a new result to every Core of every region."""
        subject = subjects.receipt(self._me.region, stored.result.hold_id)
        try:
            await self._bus.publish(subject, stored.raw)
        except KcmError as error:
            log.warning(
                "a result could not be sent; other Cores get it when they check the kill: %s",
                error.detail,
                extra=fields(
                    hold=stored.result.hold_id,
                    region=stored.result.region,
                    instance=stored.result.instance,
                    code=error.code.value,
                ),
            )


def _why(error: KcmError, done: str) -> str:
    return f"the result could not be {done}: {error.detail or error.code.value}"
