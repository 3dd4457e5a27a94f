"""The roster in the region's control stream: every instance reads it, Cores write it.

Cores keep the roster with the highest version at ``control.roster``, and beside it the endorsements
of retired signers, in pages. Both are self-authenticating: the root signs a roster, and the roster
commits to the lists. So a client that can write to the stream withholds them only until a Core
writes them again, and can make no instance trust another roster.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from hashlib import sha256
from typing import Any, Final

from kcm_schemas import subjects
from kcm_schemas.audit import EventType
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Retirement, Role
from kcm_trust.endorsements import PAGE_BYTES, PAGES_MAX, StagedEndorsements, page_count
from kcm_trust.roster import entries, name_of
from kcm_trust.verify import Outdated, Untrusted

from kcm_runtime.audit.port import Emit
from kcm_runtime.audit.rejection_log import RejectionLog
from kcm_runtime.clock import Clock, Randomness
from kcm_runtime.instance import InstanceContext
from kcm_runtime.logs import fields
from kcm_runtime.nats.missing_entries import MissingEntries
from kcm_runtime.nats.ports import Entry, StreamLog
from kcm_runtime.nats.streams import FORGOTTEN
from kcm_runtime.roster.stream_copies import StreamCopies
from kcm_runtime.tasks import TaskSet

log = logging.getLogger(__name__)

STAND_BACK_S: Final = 0.1
"""The most seconds, drawn at random, before a Core writes: all see the same, and one writes."""

RETRY_S: Final = 1.0
"""Seconds before a failed write, save or fetch is tried again."""


class RosterFollower:
    """Takes rosters and lists over from the stream, and keeps them there."""

    def __init__(
        self,
        me: InstanceContext,
        stream: StreamLog,
        refusals: RejectionLog,
        emit: Emit,
        randomness: Randomness,
        clock: Clock,
    ) -> None:
        self._me: Final = me
        self._stream: Final = stream
        self._refusals: Final = refusals
        self._emit: Final = emit
        self._random: Final = randomness
        self._staged: Final = StagedEndorsements()
        self._copies: Final = StreamCopies(me, clock)
        self._had = b""
        """The last roster that the stream was seen to have and that was in force then."""
        self._outbid = 0
        """The highest version that the root signed and that must not follow the roster in force."""
        self._missing: Final = MissingEntries(
            "the roster, or endorsements of a retired signer,", emit
        )
        self._tasks: Final = TaskSet()
        self._running: dict[str, asyncio.Task[None]] = {}
        me.rosters.lists_from(self._staged.whole)
        me.rosters.listen(self._changed)

    async def fetch(self) -> None:
        """Take the stream's roster and lists before anything else in it is read."""
        try:
            stored = await self._stream.last(subjects.control_roster(self._me.region))
        except KcmError:
            return  # following the stream reports the error
        if stored is not None and stored.data:
            self._take(stored.data)
        await self._fetch_lists()

    def receive(self, entry: Entry) -> None:
        """Take an entry of the stream with a roster or a page of a list; nothing here waits."""
        had = self._copies.stored(entry.subject)
        if entry.subject == subjects.control_roster(self._me.region):
            above = had is None or had.sequence < entry.sequence
            self._take(entry.data, stepped_back=above and self._had == self._me.rosters.raw)
            self._note(entry.subject, entry.sequence, entry.data)
        page = subjects.read_endorsements(entry.subject)
        if page is not None and page[1] < PAGES_MAX and self._on_roster(page[0]):
            self._note(entry.subject, entry.sequence, entry.data)
            self.stage(*page, entry.data)
        if (
            had is not None
            and had.sequence < entry.sequence
            and self._copies.lacks(entry.subject, had)
        ):
            self._missing.found(entry.subject, entry)
        self.mend()

    def stage(self, name: str, page: int, raw: bytes) -> None:
        """Keep a page from another source; it has no effect before a roster commits to its list."""
        if self._on_roster(name):
            self._staged.take(name, page, raw)
            self._complete(name)

    async def publish(self, name: str, page: int, raw: bytes) -> None:
        """Publish a page to all instances of the region, before the roster that commits to it.

        Raises ``malformed`` for a page of a signer that is not on the roster, and ``unavailable``.
        """
        if not self._on_roster(name) or page >= PAGES_MAX or not 0 < len(raw) <= PAGE_BYTES:
            raise KcmError(Code.MALFORMED, "not a page of a list of a signer on the roster")
        if self._me.verifier.endorsements.get(name) is None:
            self.stage(name, page, raw)
            await self._stream.put(subjects.control_endorsements(self._me.region, name, page), raw)

    def has(self, name: str, said: Retirement) -> bool:
        """Whether a list to which a roster commits is here, or all of its pages are."""
        known = self._me.verifier.endorsements.get(name)
        if not said.count or (known is not None and known.retirement() == said):
            return True
        return self._staged.whole(name, said) is not None

    def mend(self) -> None:
        """If this is a Core, make sure that the stream has the roster and lists that are here."""
        if self._me.role is Role.CORE and self._me.acts:
            self.bring()

    def bring(self) -> None:
        """Make sure of it on any instance, even if the roster retires it: the root signed it."""
        if not self.stored:
            self._spawn("write", self._write_all)

    @property
    def stored(self) -> bool:
        """Whether the stream has the roster in force, and all of its lists that are here."""
        return self._copies.complete

    @property
    def stored_since(self) -> float:
        """Since when the stream is known to have the roster in force; infinity if it lacks it.

        A reader of later entries of the stream judges by this roster, or by a higher one.
        """
        if not self._me.rosters.raw:
            return float("-inf")  # it was never signed: no stream has it
        place = self._copies.stored(subjects.control_roster(self._me.region))
        return float("inf") if place is None else place.noted

    @property
    def highest(self) -> int:
        """The highest version that is in force here, or that the root signed and the stream has."""
        return max(self._me.rosters.version, self._outbid)

    def precedes(self, sequence: int) -> bool:
        """Whether an entry was stored before the roster in force, as far as is known.

        Its writer may have been entitled to it then.
        """
        if not self._me.rosters.raw:
            return False
        place = self._copies.stored(subjects.control_roster(self._me.region))
        return place is None or sequence < place.sequence

    @property
    def seen(self) -> int:
        """How many entries in force the stream was seen to have."""
        return self._copies.seen

    def some(self, after: bytes, count: int) -> list[tuple[bytes, str]]:
        """Return the next ``count`` of them after ``after``, by their subjects."""
        return self._copies.some(after, count)

    def look(self, key: bytes, stored: Entry | None) -> None:
        """Compare the leader's entry of a subject with the one that the stream was seen to have."""
        name = key.decode()
        place = self._copies.stored(name)
        if place is None:
            return  # it is being written, or is not in force any more
        if stored is None or sha256(stored.data).digest() != place.digest:
            self._missing.found(name, stored)
            self._copies.drop(name)
            self.mend()

    def forget(self, above: int) -> None:
        """Forget entries above a sequence, which may be lost: missing ones are written again."""
        if self._copies.forget(above):
            self.mend()

    async def close(self) -> None:
        """Stop writing and fetching."""
        self._tasks.close()
        self._missing.close()

    def _take(self, raw: bytes, *, stepped_back: bool = False) -> None:
        """Take a valid roster over; an older one is history unless it replaced a newer one."""
        rosters = self._me.rosters
        if not raw or raw == rosters.raw:
            return
        try:
            rosters.take(raw)
        except Untrusted as error:
            self._outbid = max(self._outbid, rosters.outbid_by(raw))
            if stepped_back or not isinstance(error, Outdated):
                self._refusals.record(error)
        except KcmError:
            log.warning(
                "the roster is in force and not on the disk yet",
                extra=fields(region=self._me.region, version=rosters.version),
            )

    async def _keep(self) -> None:
        """Save the roster in force to the disk, with retries until it is there."""
        while not self._tasks.closed:
            try:
                self._me.rosters.keep()
            except KcmError:
                await asyncio.sleep(RETRY_S)
            else:
                return

    def _note(self, subject: str, sequence: int, data: bytes) -> None:
        in_force = self._copies.note(subject, sequence, data)
        if data == self._me.rosters.raw:
            self._had = data
        if in_force:
            self._missing.seen(subject, subject)

    def _on_roster(self, name: str) -> bool:
        return any(name == name_of(one) for one in entries(self._me.verifier.roster))

    def _changed(self, names: frozenset[str]) -> None:
        """Another roster is in force: complete the lists that came before it, fetch the others."""
        self._emit(
            EventType.ROSTER_TAKEN,
            count=len(names),
            detail=f"version {self._me.rosters.version}",
        )
        for name in self._me.rosters.missing():
            self._complete(name)
        for name in self._me.verifier.endorsements:
            self._staged.forget(name)
        self._spawn("keep", self._keep)
        self.mend()
        if self._me.rosters.missing():
            self._spawn("lists", self._fetch_lists_with_retry)

    def _complete(self, name: str) -> None:
        said = self._me.rosters.missing().get(name)
        raw = None if said is None else self._staged.whole(name, said)
        if raw is not None:
            self._staged.forget(name)
            self._me.rosters.take_list(name, raw)

    async def _fetch_lists_with_retry(self) -> None:
        while self._me.rosters.missing() and not self._tasks.closed:
            await self._fetch_lists()
            await asyncio.sleep(RETRY_S)

    async def _fetch_lists(self) -> None:
        for name, said in self._me.rosters.missing().items():
            for page in range(page_count(said)):
                subject = subjects.control_endorsements(self._me.region, name, page)
                try:
                    stored = await self._stream.last(subject)
                except KcmError:
                    return
                if stored is not None:
                    self._staged.take(name, page, stored.data)
            self._complete(name)

    async def _write_all(self) -> None:
        await asyncio.sleep(STAND_BACK_S * self._random.public(1)[0] / 256)
        while not self._tasks.closed and not self.stored:
            try:
                for subject, data in self._copies.wanted():
                    await self._write(subject, data)
            except KcmError as error:
                if error.code is Code.CONFLICT:
                    await asyncio.sleep(STAND_BACK_S)
                else:
                    log.warning(
                        "the roster is not in the stream yet: %s",
                        error.detail,
                        extra=fields(region=self._me.region, version=self._me.rosters.version),
                    )
                    await asyncio.sleep(RETRY_S)

    async def _write(self, subject: str, data: bytes) -> None:
        stored = await self._stream.last(subject)
        if stored is not None and stored.data == data:
            self._note(subject, stored.sequence, data)
            return
        if stored is not None and subject == subjects.control_roster(self._me.region):
            self._take(stored.data)
            if data != self._me.rosters.raw:
                return  # another instance had a higher one
            if self._me.rosters.outbid_by(stored.data):
                # It must not follow the roster in force. No new instance may read ours instead.
                raise KcmError(
                    Code.UNAVAILABLE,
                    f"the stream of region {self._me.region} has a roster above version"
                    f" {self._me.rosters.version}",
                )
        expected = stored.sequence if stored is not None else 0
        with self._missing.writing(subject):
            sequence = await self._stream.put(subject, data, expected=expected)
        back = await self._stream.last(subject)
        if back is None or back.sequence < sequence:
            raise KcmError(Code.UNAVAILABLE, FORGOTTEN)
        self._note(subject, back.sequence, back.data)

    def _spawn(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        running = self._running.get(name)
        if not self._tasks.closed and (running is None or running.done()):
            self._running[name] = self._tasks.spawn(work())
