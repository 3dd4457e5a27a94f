"""The roster in the region's control stream: read by everybody, written by Cores.

Cores keep the highest roster that they have at ``control.roster``, and beside it the lists of what
lasts of those who are retired, in pages. Both authenticate themselves: a roster by the root's
signature, a list by the roster. So whoever can write to the stream keeps neither from anybody for
longer than a Core takes to write it again, and makes nobody believe another one.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable, Coroutine
from hashlib import sha256
from typing import Any, Final, NamedTuple

from kcm_schemas import subjects
from kcm_schemas.audit import EventType
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Retirement, Role
from kcm_trust.endorsements import PAGE_BYTES, PAGES_MAX, Staged, page_count, pages
from kcm_trust.roster import entries, name_of
from kcm_trust.verify import Outdated, Untrusted, Verifier

from kcm_runtime.audit.port import Emit
from kcm_runtime.audit.rejection_log import RejectionLog
from kcm_runtime.clock import Clock, Randomness
from kcm_runtime.instance import InstanceContext
from kcm_runtime.nats.missing_entries import Missing
from kcm_runtime.nats.ports import Entry, Log
from kcm_runtime.nats.streams import FORGOTTEN

log = logging.getLogger(__name__)

STAND_BACK_S: Final = 0.1
"""Seconds, drawn at random, before a Core writes: all of them see the same, one has to do it."""

RETRY_S: Final = 1.0
"""Seconds after which what could not be written, kept or fetched is tried again."""


class _Place(NamedTuple):
    """Where something lies, its SHA-256, and since when it is known to lie there."""

    sequence: int
    digest: bytes
    noted: float


class RosterFeed:
    """Takes rosters and lists over from the stream, and keeps them there."""

    def __init__(
        self,
        membership: InstanceContext,
        stream: Log,
        refusals: RejectionLog,
        emit: Emit,
        randomness: Randomness,
        clock: Clock,
    ) -> None:
        self._me: Final = membership
        self._clock: Final = clock
        self._stream: Final = stream
        self._refusals: Final = refusals
        self._emit: Final = emit
        self._random: Final = randomness
        self._staged: Final = Staged()
        self._places: dict[str, _Place] = {}
        """Where something lies in the stream."""
        self._had = b""
        """The roster that the stream was seen to have last, of those that counted then."""
        self._outbid = 0
        """The highest version that the root signed, and that must not follow the one known here."""
        self._missing: Final = Missing("the roster, or what lasts of somebody retired,", emit)
        self._made: tuple[Verifier | None, dict[str, bytes]] = (None, {})
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closing = False
        membership.rosters.lists_from(self._staged.whole)
        membership.rosters.listen(self._changed)

    async def fetch(self) -> None:
        """Take what the stream has, before anything else in it is read."""
        try:
            stored = await self._stream.last(subjects.control_roster(self._me.region))
        except KcmError:
            return  # following it finds out what is wrong
        if stored is not None and stored.data:
            self._take(stored.data)
        await self._fetch_lists()

    def receive(self, entry: Entry) -> None:
        """Take an entry of the stream with a roster, or a page of a list; nothing here waits."""
        had = self._stored(entry.subject)
        if entry.subject == subjects.control_roster(self._me.region):
            above = had is None or had.sequence < entry.sequence
            self._take(entry.data, stepped_back=above and self._had == self._me.rosters.raw)
            self._note(entry.subject, entry.sequence, entry.data)
        page = subjects.read_lasting(entry.subject)
        if page is not None and page[1] < PAGES_MAX and self._on_roster(page[0]):
            self._note(entry.subject, entry.sequence, entry.data)
            self.stage(*page, entry.data)
        if had is not None and had.sequence < entry.sequence and self._lacks(entry.subject, had):
            self._missing.found(entry.subject, entry)
        self.mend()

    def stage(self, name: str, page: int, raw: bytes) -> None:
        """Keep a page that came by another way; nothing in it counts before a roster names it."""
        if self._on_roster(name):
            self._staged.take(name, page, raw)
            self._complete(name)

    async def publish(self, name: str, page: int, raw: bytes) -> None:
        """Bring a page to every instance of the region, before the roster that names its list.

        Raises ``malformed`` for one of nobody on the roster, and ``unavailable``.
        """
        if not self._on_roster(name) or page >= PAGES_MAX or not 0 < len(raw) <= PAGE_BYTES:
            raise KcmError(Code.MALFORMED, "not a page of a list of somebody on the roster")
        if self._me.verifier.lasting.get(name) is None:
            self.stage(name, page, raw)
            await self._stream.put(subjects.control_lasting(self._me.region, name, page), raw)

    def has(self, name: str, said: Retirement) -> bool:
        """Whether a list that a roster names is here, or all of its pages are."""
        known = self._me.verifier.lasting.get(name)
        if not said.count or (known is not None and known.retirement() == said):
            return True
        return self._staged.whole(name, said) is not None

    def mend(self) -> None:
        """See to it, if this is a Core, that the stream has the roster and the lists known here."""
        if self._me.role is Role.CORE and self._me.acts:
            self.bring()

    def bring(self) -> None:
        """The same by whoever was given the roster, though it retires them: the root signed it."""
        if not self.stored:
            self._spawn("write", self._write_all)

    @property
    def stored(self) -> bool:
        """Whether the stream has the roster that counts here, and every list of it that is here."""
        return all(self._stored(at) is not None for at in self._digests())

    @property
    def stored_since(self) -> float:
        """Since when the stream is known to have the roster that counts; infinity: it lacks it.

        Whoever reads the stream behind that place judges by this roster, or by a higher one.
        """
        if not self._me.rosters.raw:
            return float("-inf")  # it was never signed: nobody has it from a stream
        place = self._stored(subjects.control_roster(self._me.region))
        return float("inf") if place is None else place.noted

    @property
    def highest(self) -> int:
        """The highest version that counts here, or that the root signed and the stream has."""
        return max(self._me.rosters.version, self._outbid)

    def precedes(self, sequence: int) -> bool:
        """Whether an entry was stored before the roster that counts, as far as is known.

        Whoever wrote it may have acted then.
        """
        if not self._me.rosters.raw:
            return False
        place = self._stored(subjects.control_roster(self._me.region))
        return place is None or sequence < place.sequence

    def _stored(self, subject: str) -> _Place | None:
        place, digest = self._places.get(subject), self._digests().get(subject)
        return place if place is not None and place.digest == digest else None

    def _lacks(self, subject: str, had: _Place) -> bool:
        """Whether something else lies there than what it had, which still is what counts."""
        return self._digests().get(subject) == had.digest and self._stored(subject) is None

    @property
    def seen(self) -> int:
        """How many entries the stream was seen to have of what counts here."""
        return len(self._digests().keys() & self._places.keys())

    def some(self, after: bytes, count: int) -> list[tuple[bytes, str]]:
        """The next few of them, by their subjects."""
        named = self._digests().keys() & self._places.keys()
        behind = (name for name in named if name.encode() > after)
        return [(name.encode(), name) for name in heapq.nsmallest(count, behind)]

    def look(self, key: bytes, stored: Entry | None) -> None:
        """Compare what the stream's leader has under a subject with what it was seen to have."""
        name = key.decode()
        place = self._stored(name)
        if place is None:
            return  # it is being written, or does not count any more
        if stored is None or sha256(stored.data).digest() != place.digest:
            self._missing.found(name, stored)
            del self._places[name]
            self.mend()

    def forget(self, above: int) -> None:
        """What lies above a sequence may be lost: what the stream lacks is written again."""
        kept = {at: place for at, place in self._places.items() if place.sequence <= above}
        if len(kept) < len(self._places):
            self._places = kept
            self.mend()

    async def close(self) -> None:
        """Stop writing and fetching."""
        self._closing = True
        for task in list(self._tasks.values()):
            task.cancel()
        self._missing.close()

    def _take(self, raw: bytes, *, stepped_back: bool = False) -> None:
        """Take a roster over that may; an older one is history, unless a newer one lay there."""
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
            log.warning("the roster counts and is not on the disk yet")

    async def _keep(self) -> None:
        """It counts already; what could not be kept on disk is tried again until it is."""
        while not self._closing:
            try:
                self._me.rosters.keep()
            except KcmError:
                await asyncio.sleep(RETRY_S)
            else:
                return

    def _note(self, subject: str, sequence: int, data: bytes) -> None:
        place = _Place(sequence, sha256(data).digest(), self._clock.elapsed())
        known = self._places.get(subject)
        if known is None or known[:2] != place[:2]:
            self._places[subject] = place
        if data == self._me.rosters.raw:
            self._had = data
        if self._digests().get(subject) == place.digest:
            self._missing.seen(subject, subject)

    def _on_roster(self, name: str) -> bool:
        return any(name == name_of(one) for one in entries(self._me.verifier.roster))

    def _changed(self, names: frozenset[str]) -> None:
        """Another roster counts: lists that came before it are complete now, or are asked for."""
        self._emit(
            EventType.ROSTER_TAKEN,
            count=len(names),
            detail=f"version {self._me.rosters.version}",
        )
        for name in self._me.rosters.missing():
            self._complete(name)
        for name in self._me.verifier.lasting:
            self._staged.forget(name)
        self._spawn("keep", self._keep)
        self.mend()
        if self._me.rosters.missing():
            self._spawn("lists", self._fetch_lists_somehow)

    def _complete(self, name: str) -> None:
        said = self._me.rosters.missing().get(name)
        raw = None if said is None else self._staged.whole(name, said)
        if raw is not None:
            self._staged.forget(name)
            self._me.rosters.take_list(name, raw)

    async def _fetch_lists_somehow(self) -> None:
        while self._me.rosters.missing() and not self._closing:
            await self._fetch_lists()
            await asyncio.sleep(RETRY_S)

    async def _fetch_lists(self) -> None:
        for name, said in self._me.rosters.missing().items():
            for page in range(page_count(said)):
                subject = subjects.control_lasting(self._me.region, name, page)
                try:
                    stored = await self._stream.last(subject)
                except KcmError:
                    return
                if stored is not None:
                    self._staged.take(name, page, stored.data)
            self._complete(name)

    def _digests(self) -> dict[str, bytes]:
        """The SHA-256 of what the stream has to have; asked for every entry, so made once."""
        made_for, digests = self._made
        if made_for is not self._me.verifier:
            digests = {at: sha256(data).digest() for at, data in self._wanted()}
            self._made = (self._me.verifier, digests)
        return digests

    def _wanted(self) -> list[tuple[str, bytes]]:
        """What the stream has to have, lists first: whoever reads the roster has them then."""
        rosters, region = self._me.rosters, self._me.region
        if not rosters.raw:
            return []
        found = [
            (subjects.control_lasting(region, name, page), raw)
            for name, lasting in sorted(self._me.verifier.lasting.items())
            for page, raw in enumerate(pages(lasting))
        ]
        return [*found, (subjects.control_roster(region), rosters.raw)]

    async def _write_all(self) -> None:
        await asyncio.sleep(STAND_BACK_S * self._random.public(1)[0] / 256)
        while not self._closing and not self.stored:
            try:
                for subject, data in self._wanted():
                    await self._write(subject, data)
            except KcmError as error:
                if error.code is Code.CONFLICT:
                    await asyncio.sleep(STAND_BACK_S)
                else:
                    log.warning("the roster is not in the region's stream yet: %s", error.detail)
                    await asyncio.sleep(RETRY_S)

    async def _write(self, subject: str, data: bytes) -> None:
        stored = await self._stream.last(subject)
        if stored is not None and stored.data == data:
            self._note(subject, stored.sequence, data)
            return
        if stored is not None and subject == subjects.control_roster(self._me.region):
            self._take(stored.data)
            if data != self._me.rosters.raw:
                return  # somebody else had a higher one
            if self._me.rosters.outbid_by(stored.data):
                # It must not follow the one known here. Nobody who begins may read ours instead.
                raise KcmError(Code.UNAVAILABLE, "the region's stream has a higher roster")
        expected = stored.sequence if stored is not None else 0
        with self._missing.writing(subject):
            sequence = await self._stream.put(subject, data, expected=expected)
        back = await self._stream.last(subject)
        if back is None or back.sequence < sequence:
            raise KcmError(Code.UNAVAILABLE, FORGOTTEN)
        self._note(subject, back.sequence, back.data)

    def _spawn(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        running = self._tasks.get(name)
        if self._closing or (running is not None and not running.done()):
            return
        self._tasks[name] = asyncio.get_running_loop().create_task(work())
