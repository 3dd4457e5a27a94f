"""Lift pages: accepted from every source, and stored in the region's stream.

Most holds are lifted in the end. Each was a message of the stream, a file on every Core's disk and
a state in every process. A page states of thousands of holds that they have ended. An instance
that accepts the page keeps sixteen bytes for each hold. A Core also archives the statement and,
when the page is in the stream, lets the hold's own message there expire.

A page counts as long as its signer may lift the holds that it names, by the highest roster. When it
does not count any more, Cores restore from their archives the holds that no other page ends.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import Final

from kcm_runtime.error_text import describe
from kcm_runtime.host import Host
from kcm_runtime.logs import fields
from kcm_runtime.nats.missing_entries import MissingEntries
from kcm_runtime.nats.ports import Entry, StreamLog
from kcm_runtime.nats.streams import FORGOTTEN
from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind, read_signed
from kcm_trust.statements import signed_by
from kcm_trust.verify import Forged, Unlisted, Untrusted

from kcm_killswitch.model import id_set
from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.lift_pages import Page, Pages, Place
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.replica.archived_holds import ArchivedHolds
from kcm_killswitch.replica.ended_messages import EndedMessages
from kcm_killswitch.replica.hold_store_port import HoldStore
from kcm_killswitch.replica.lift_page_names import memory_key, place_of
from kcm_killswitch.replica.log_fields import of_page

log = logging.getLogger(__name__)

STAND_BACK_S: Final = 0.1
"""Upper bound, in seconds, of the random delay before a Core writes: one Core's work suffices."""

RETRY_S: Final = 1.0
"""Seconds between attempts of a write that failed."""

ASIDE_MAX: Final = 256
"""Pages of retired signers that are kept while no endorsement lists them: 33 MiB at most."""

_UNSTORED: Final = "a page of lifted holds is not in the stream yet, the write is repeated: %s"


class LiftPages:
    """The known pages, and their effects."""

    def __init__(
        self,
        host: Host,
        replica_state: ReplicaState,
        *,
        stream: StreamLog,
        hold_store: HoldStore,
        learn: Callable[[bytes], object],
        examine: Callable[[bytes], HoldState],
        ended: Callable[[HoldState], int],
        expire: Callable[[Entry], bool],
    ) -> None:
        """``learn`` applies a hold or lift, and ``examine`` verifies one only.

        ``ended`` is called with every state that is dropped, and returns the sequence of its
        message in the stream (0 if there is none). ``expire`` makes a message of the stream expire;
        it returns false if it cannot do so now.
        """
        self._me: Final = host.me
        self._stream: Final = stream
        self._hold_store: Final = hold_store
        self._revocations: Final = replica_state.revocations
        self._ended: Final = ended
        self._random: Final = host.randomness
        self.pages: Final = Pages()
        self._aside: dict[bytes, bytes] = {}
        """Pages that no endorsement lists (yet), by their digests."""
        self._stored: dict[tuple[str, str, str, int], tuple[bytes, int]] = {}
        """The key and sequence of the page that was seen in the stream, by place."""
        self._missing: Final = MissingEntries("a page of lifted holds", host.emit)
        self.messages: Final = EndedMessages(
            hold_store=hold_store,
            stored_ids=lambda group, prefix: self.pages.ids(group, prefix, self.has),
            expire=expire,
        )
        self.archive: Final = ArchivedHolds(
            hold_store=hold_store,
            learn=learn,
            examine=examine,
            revocations=replica_state.revocations,
        )
        self._writing: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def _core(self) -> bool:
        return self._me.role is Role.CORE

    def take(self, raw: bytes) -> bytes:
        """Accept a page; returns its key, of the form of a hold's id. Raises ``Untrusted``."""
        page = self._read(raw)
        self._accept(page)
        self.mend()
        return page.key

    def receive(self, entry: Entry) -> None:
        """Process a page from the stream; nothing here waits. Raises ``Untrusted``."""
        place = place_of(entry.subject)
        had = self._had(place)
        _, noted = (b"", 0) if place is None else self._stored.pop(place, (b"", 0))
        try:
            if not entry.data:
                return  # it expires: its content could never be valid
            page = self._read(entry.data)
            if entry.subject != self._subject(page.place):
                raise Forged("the lift page has the subject of another one")
            self._accept(page)
            self._note(page, entry.sequence)
        finally:
            if had is not None and noted < entry.sequence and self._lacks(had):
                self._missing.found(had.place, entry)
            self.mend()

    def _lacks(self, had: Page) -> bool:
        """Whether the stream lost the page that it had, which still is the largest of its place."""
        return self.pages.best(had.place) == had and not self.has(had.place)

    def _had(self, place: Place | None) -> Page | None:
        """The largest page of a place, if it was seen in the stream."""
        best = None if place is None else self.pages.best(place)
        return best if best is not None and self.has(best.place) else None

    def superseded(self, entry: Entry, state: HoldState) -> None:
        """A message of a hold that a page ends: it expires when the page is in the stream."""
        if self._core:
            hold_id = state.hold.id
            self.messages.add(state.group, hold_id, entry.sequence, entry.subject)
            self.messages.sweep_some(state.group, hold_id[0], (hold_id,))

    def judge_again(self, names: frozenset[str]) -> None:
        """Re-evaluate the pages of these signers, whose roster entry or endorsements changed."""
        affected = set()
        for page in [one for one in self.pages if one.place.signer in names]:
            try:
                self._read(page.raw)
            except Untrusted:
                self.pages.drop(page)
                affected.add((page.place.group, page.place.prefix))
        for group, prefix in sorted(affected):
            self._turn(group, prefix)
        for key, raw in list(self._aside.items()):
            if signed_by(raw, names):
                del self._aside[key]
                with suppress(Untrusted):
                    self._accept(self._read(raw))
        self.mend()

    def mend(self) -> None:
        """Ensure, if this is a Core, that the stream has the pages that are known here."""
        idle = self._writing is None or self._writing.done()
        if self._core and self._me.acts and not self._closing and idle and not self.stored:
            self._writing = asyncio.get_running_loop().create_task(self._write_all())

    @property
    def seen(self) -> int:
        """The number of pages that were seen in the stream."""
        return len(self._stored)

    def some(self, after: bytes, count: int) -> list[tuple[bytes, str]]:
        """The next few pages that were seen in the stream, by their subjects."""
        named = (self._subject(place) for place in self.pages.places if place in self._stored)
        behind = (name for name in named if name.encode() > after)
        return [(name.encode(), name) for name in heapq.nsmallest(count, behind)]

    def look(self, key: bytes, stored: Entry | None) -> None:
        """Compare the leader's entry of a page with what was seen in the stream."""
        best = self._had(place_of(key.decode()))
        if best is None:
            return  # its write is in progress
        if stored is None or stored.data != best.raw:
            self._missing.found(best.place, stored)
            self._stored.pop(best.place, None)
            self.mend()

    def forget(self, above: int = 0) -> None:
        """Entries above a sequence may be lost: write again what the stream lacks."""
        self._stored = {at: seen for at, seen in self._stored.items() if 0 < seen[1] <= above}
        self.messages.forget(above)
        self.mend()

    @property
    def stored(self) -> bool:
        """Whether the stream has every known page that it can have."""
        return all(map(self.has, self.pages.places))

    def has(self, place: Place) -> bool:
        """Whether the stream has the current page of one place."""
        best = self.pages.best(place)
        return best is None or self._stored.get(place, (b"", 0))[0] == best.key

    async def fetch(self, place: Place) -> bytes:
        """All ids of one place, including those in the stream; raises ``unavailable``.

        The writer of a page has to begin with what the stream has: this incarnation may have read
        an older page, or may have lost its disk.
        """
        await self._take_stored(place)
        return self.pages.own(place)

    def stored_at(self, state: HoldState) -> int:
        """The sequence in the stream of a page that ends this hold; 0 if there is none."""
        found = self.pages.ending(state.group, state.hold.id)
        stored = [page.place for page in found if self.has(page.place)]
        return max((self._stored[place][1] for place in stored), default=0)

    def ended_by(self, state: HoldState) -> Page | None:
        """The first page that ends a hold; it is the same on every instance."""
        return next(iter(self.pages.ending(state.group, state.hold.id)), None)

    def close(self) -> None:
        """Stop writing."""
        self._closing = True
        if self._writing is not None:
            self._writing.cancel()
        self.archive.close()
        self._missing.close()

    def _read(self, raw: bytes) -> Page:
        try:
            found = self._me.verifier.lifts(raw)
        except Unlisted:
            self._aside[sha256(raw).digest()] = raw
            while len(self._aside) > ASIDE_MAX:
                del self._aside[next(iter(self._aside))]
            raise
        lifts = found.lifts
        place = Place(lifts.cause, lifts.origin, found.signer, lifts.prefix)
        return Page(place, lifts.ids, raw, lifts.issued_ms)

    def _accept(self, page: Page) -> None:
        if self.pages.put(page):
            self._aside.pop(sha256(page.raw).digest(), None)
            self._turn(page.place.group, page.place.prefix)
            best = self.pages.best(page.place)
            if best is not None:
                self._hold_store.remember(memory_key(page.place), best.raw)

    def _turn(self, group: str, prefix: int) -> None:
        """The set of ids in the pages of one group and first byte changed."""
        paged = self.pages.ids(group, prefix)
        before = self._revocations.holds.paged(prefix, group)
        gone = self._revocations.turned(prefix, group, paged)
        for state in gone:
            hold, sequence = state.hold, self._ended(state)
            self._hold_store.archive(hold.id, state.message)
            if sequence and self._core:
                subject = subjects.control_hold(self._me.region, hold.scope, hold.id)
                self.messages.add(group, hold.id, sequence, subject)
        if gone:
            self.messages.sweep_some(group, prefix)
        if self._core:
            self.archive.restore(id_set.each(id_set.without(before, paged)))

    def _subject(self, place: Place) -> str:
        return subjects.control_lifts(self._me.region, *place)

    def _note(self, page: Page, sequence: int) -> None:
        """Record that the stream was seen to have a page."""
        self._stored[page.place] = (page.key, sequence)
        if self.has(page.place):
            self._missing.seen(page.place, self._subject(page.place))
        self.messages.sweep_some(page.place.group, page.place.prefix)

    async def _write_all(self) -> None:
        await asyncio.sleep(STAND_BACK_S * self._random.public(1)[0] / 256)
        while not self._closing and not self.stored:
            for place in self.pages.places:
                try:
                    if not self.has(place):
                        await self._write(place)
                except KcmError as error:
                    if error.code is Code.CONFLICT:
                        await asyncio.sleep(STAND_BACK_S)
                    else:
                        log.warning(
                            _UNSTORED,
                            error.detail,
                            extra=fields(**of_page(place), code=error.code.value),
                        )
                        await asyncio.sleep(RETRY_S)
                except Exception as error:  # noqa: BLE001 - keep the writer alive
                    log.error(_UNSTORED, describe(error), extra=fields(**of_page(place)))
                    await asyncio.sleep(RETRY_S)

    async def _take_stored(self, place: Place) -> Entry | None:
        """Learn what the stream has at a place, and return it; raises ``unavailable``."""
        stored = await self._stream.last(self._subject(place))
        if stored is not None and stored.data:
            try:
                self.take(stored.data)
            except Untrusted as error:
                log.warning(
                    "a page of lifted holds in the stream is not believed, and ends no hold: %s",
                    error,
                    extra=fields(**of_page(place), sequence=stored.sequence),
                )
        return stored

    async def _write(self, place: Place) -> None:
        """Learn the stored page of one place, then overwrite it with the largest page."""
        subject = self._subject(place)
        stored = await self._take_stored(place)
        best = self.pages.best(place)
        if best is None:
            return
        if stored is not None and stored.data == best.raw:
            self._note(best, stored.sequence)
            return
        before = stored.sequence if stored is not None else 0
        with self._missing.writing(place):
            sequence = await self._stream.put(subject, best.raw, expected=before)
        back = await self._stream.last(subject)
        if back is None or back.sequence < sequence:
            raise KcmError(Code.UNAVAILABLE, FORGOTTEN)
        if back.data == best.raw:  # otherwise another Core wrote a page since
            self._note(best, back.sequence)


def is_page(raw: bytes) -> bool:
    """Whether a message claims to be a lift page; it is not verified here."""
    try:
        return read_signed(raw).kind is Kind.LIFTS
    except KcmError:
        return False
