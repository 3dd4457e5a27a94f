"""Replication of known holds to the control stream, whenever the stream lacks one of them.

The stream keeps one message for each subject, and incarnations learn from it. It therefore must
have the joined state of every hold that a Core knows, whatever a broker or a client with its
password stored instead: an older state, another hold, or unverifiable data. A write is a
compare-and-set on what was read, and what was read is learned first, so two Cores that write
concurrently converge.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from itertools import islice
from typing import Final

from kcm_runtime.audit.rejection_log import RejectionLog
from kcm_runtime.changes import Changes
from kcm_runtime.error_text import describe
from kcm_runtime.host import Host
from kcm_runtime.logs import fields
from kcm_runtime.nats.missing_entries import MissingEntries
from kcm_runtime.nats.ports import Entry, StreamLog
from kcm_runtime.nats.streams import FORGOTTEN
from kcm_runtime.tasks import TaskSet
from kcm_schemas import subjects
from kcm_schemas.audit import EventType
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Role
from kcm_trust.verify import Untrusted

from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.log_position import LogPosition
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.replica.hold_applier import about
from kcm_killswitch.replica.hold_positions import HoldPositions, Place
from kcm_killswitch.replica.log_fields import of_hold

log = logging.getLogger(__name__)

RETRY_S: Final = 0.25
"""Seconds between attempts to make a hold durable."""

STAND_BACK_S: Final = 0.03
"""Upper bound, in seconds, of the random delay before a Core writes a hold. All Cores receive it at
once: the first writer saves the others the work, and no write takes processor time from a purge."""


REPLACE_S: Final = 2.0
"""Seconds, up to twice as many, after which another form of a known state is replaced."""

WRITES_MAX: Final = 64
"""Holds that a Core writes concurrently: thousands that were learned together take turns, and a
hold that was placed here does not wait for them."""


class HoldReplicator:
    """Compares the stream with the known holds; a Core's tasks write there what it lacks."""

    def __init__(
        self,
        host: Host,
        replica_state: ReplicaState,
        *,
        stream: StreamLog,
        learn: Callable[[bytes], HoldState],
        refusals: RejectionLog,
        changes: Changes,
    ) -> None:
        self._random: Final = host.randomness
        self._me: Final = host.me
        self._stream: Final = stream
        self._revocations: Final = replica_state.revocations
        self._learn: Final = learn
        self._refusals: Final = refusals
        self._changes: Final = changes
        self._emit: Final = host.emit
        self.positions: Final = HoldPositions(host.clock)
        self._again: dict[bytes, bool] = {}
        """Holds whose write is in progress, and whether each must be checked once more."""
        self._forgotten: set[bytes] = set()
        """Holds that the stream acknowledged but did not have: each is logged once."""
        self._missing: Final = MissingEntries("a hold", host.emit)
        self._tasks: Final = TaskSet()
        self._replacements: Final = TaskSet()
        self._replacing: set[bytes] = set()
        self._turns: Final = asyncio.Semaphore(WRITES_MAX)
        self._why = ""

    @property
    def why(self) -> str:
        """The reason why the last write was not acknowledged; empty if it was. Safe text."""
        return self._why

    def place(self, state: HoldState) -> int:
        """The stream sequence at which exactly this state of a hold is stored; 0 if it is not.

        The latest such sequence counts: see ``HoldPositions.note``.
        """
        place = self.placed(state)
        return 0 if place is None else place.sequence

    def placed(self, state: HoldState) -> Place | None:
        """The same, with the time since which it is known."""
        return self.positions.placed(state)

    def highest(self) -> LogPosition:
        """The highest sequence at which a hold is stored, and its id."""
        return self.positions.highest()

    def note(self, state: HoldState, sequence: int) -> None:
        """Record that the stream was seen to have this state."""
        self.positions.note(state, sequence)
        self._missing.seen(state.hold.id, self._subject(state))
        self._changes.notify()

    @property
    def unwritten(self) -> int:
        """The number of holds whose write is in progress, or waits for its turn."""
        return len(self._tasks)

    @property
    def seen(self) -> int:
        """The number of holds that have a position in the stream."""
        return len(self.positions)

    def some(self, after: bytes, count: int) -> list[tuple[bytes, str]]:
        """Ids and subjects of the next few holds that have a position in the stream."""
        found = islice(self._revocations.holds.in_order(after), count)
        return [(one.hold.id, self._subject(one)) for one in found]

    async def verify(self, hold_id: bytes) -> None:
        """Check that the stream's leader still has a hold where it was seen.

        Raises ``unavailable``.
        """
        known = self._revocations.holds.get(hold_id)
        if known is not None and self.place(known):
            self.look(hold_id, await self._stream.last(self._subject(known)))

    def look(self, key: bytes, stored: Entry | None) -> None:
        """Compare the leader's entry of a hold with what the stream was seen to have.

        An entry at a lower sequence came from a former leader, or the whole stream was rolled
        back: the renewal of the lease detects that.
        """
        known = self._revocations.holds.get(key)
        place = None if known is None else self.placed(known)
        if known is None or place is None:
            return  # its write is in progress
        if stored is not None and stored.data == known.message:
            if stored.sequence > place.sequence:
                self.note(known, stored.sequence)
            return
        if stored is not None and stored.data and self._says(stored.data) == known:
            return  # another form of the same state
        self.lost(key, stored)

    def lost(self, hold_id: bytes | None, stored: Entry | None = None) -> None:
        """The stream has something else in place of this hold: ``stored``, if that is known."""
        if hold_id is None:
            return
        known = self._revocations.holds.get(hold_id)
        at = 0 if known is None else self.place(known)
        self.positions.remove(hold_id)  # also for a hold that is not valid any more
        if known is not None:
            if stored is not None and 0 < at < stored.sequence:
                self._missing.found(hold_id, stored)
            self.keep(hold_id)

    def _was_there(self, state: HoldState) -> bool:
        """Whether the stream had exactly this state before: to write it is then a repair."""
        once = self.positions.last_seen(state.hold.id)
        return once is not None and once.message == state.message

    def ended(self, hold_id: bytes) -> int:
        """A page ended this hold: the sequence of its message, now unneeded; 0 if there is none."""
        self._forgotten.discard(hold_id)
        self._missing.forget(hold_id)
        return self.positions.ended(hold_id)

    def forget(self, above: int = 0) -> None:
        """Entries above a sequence may be lost: write again what the stream lacks."""
        for state in self._revocations.holds:
            if not above or self.positions.sequence(state.hold.id) > above:
                self.lost(state.hold.id)

    @property
    def complete(self) -> bool:
        """Whether the stream has the current state of every known hold."""
        return all(self.place(state) for state in self._revocations.holds)

    def mend(self) -> None:
        """Ensure that the stream has every known hold."""
        for state in self._revocations.holds:
            if not self.place(state):
                self.keep(state.hold.id)

    def keep(self, hold_id: bytes, *, at_once: bool = False) -> None:
        """Ensure, if this is a Core, that the stream has the current state of the hold.

        ``at_once`` is for the Core that received the order: its caller waits for the write.
        """
        if self._me.role is not Role.CORE or self._tasks.closed:
            return
        if hold_id in self._again:
            self._again[hold_id] = True
            return
        self._again[hold_id] = False
        wait = 0.0 if at_once else STAND_BACK_S * (1 + self._random.public(1)[0]) / 256
        self._tasks.spawn(self._write(hold_id, wait))

    def replace(self, hold_id: bytes) -> None:
        """The stream has another form of a known state: write this form, after a delay.

        That form is a lift that does not count here and contains the hold. An instance with this
        roster reads the same state from it, so nothing is lost. By the roster of a Core that has
        another one the lift counts, and that Core would overwrite this form at once.
        """
        if self._me.role is Role.CORE and hold_id not in self._replacing:
            wait = REPLACE_S * (1 + self._random.public(1)[0] / 256)
            self._replacing.add(hold_id)
            task = self._replacements.spawn(self._replace(hold_id, wait))
            task.add_done_callback(lambda _: self._replacing.discard(hold_id))

    async def _replace(self, hold_id: bytes, wait: float) -> None:
        await asyncio.sleep(wait)
        known = self._revocations.holds.get(hold_id)
        if known is None:
            return
        subject = self._subject(known)
        try:
            stored = await self._stream.last(subject)
            if stored is None or stored.data in (b"", known.message):
                return
            if self._learn(stored.data) == self._revocations.holds.get(hold_id):
                await self._stream.put(subject, known.message, expected=stored.sequence)
        except (KcmError, Untrusted):
            return  # it is checked again when it is delivered again

    def close(self) -> None:
        """Stop writing."""
        self._tasks.close()
        self._replacements.close()
        self._missing.close()

    async def _write(self, hold_id: bytes, wait: float) -> None:
        try:
            await asyncio.sleep(wait)
            while not self._tasks.closed:
                self._again[hold_id] = False
                try:
                    if not wait:
                        done = await self.attempt(hold_id)
                    else:
                        async with self._turns:
                            done = await self.attempt(hold_id)
                except KcmError as error:
                    done = False
                    if error.code is Code.CONFLICT:
                        await asyncio.sleep(STAND_BACK_S)
                    else:
                        self._why = error.detail
                        await asyncio.sleep(RETRY_S)
                except Exception as error:  # noqa: BLE001 - keep the writer alive
                    done = False
                    log.error(
                        "a hold is not written to the stream yet, the write is repeated: %s",
                        describe(error),
                        extra=fields(hold=hold_id, stream=subjects.CONTROL_STREAM),
                    )
                    await asyncio.sleep(RETRY_S)
                if done and not self._again[hold_id]:
                    return
        finally:
            del self._again[hold_id]

    async def attempt(self, hold_id: bytes) -> bool:
        """Write the current state of the hold once; ``False`` if it changed in the meantime.

        Raises as ``StreamLog.put``.
        """
        known = self._revocations.holds.get(hold_id)
        if known is None or self.place(known):
            return True
        subject = self._subject(known)
        stored = await self._stream.last(subject)
        if stored is not None and stored.data == known.message:
            self.note(known, stored.sequence)
            return True
        if stored is not None and stored.data:
            said = self._says(stored.data)
            if self._revocations.holds.get(hold_id) != known:
                return False
            if said == known and self.positions.was_seen(hold_id):
                self.note(known, stored.sequence)
                self.replace(hold_id)
                return True
        before = self.positions.last_seen(hold_id)
        sequence = await self._put(known, stored)
        back = await self._stream.last(subject)
        if back is None or back.sequence < sequence:
            # As ``kcm_runtime.nats.streams.keep``: a damaged disk drops what it acknowledges.
            if hold_id not in self._forgotten:
                self._forgotten.add(hold_id)
                log.critical(
                    "a hold is not durable, its write is repeated: %s",
                    FORGOTTEN,
                    extra=fields(**of_hold(known), stream=subjects.CONTROL_STREAM),
                )
            raise KcmError(Code.UNAVAILABLE, FORGOTTEN)
        self._forgotten.discard(hold_id)
        return self._stored(known, before, back)

    def _stored(self, known: HoldState, before: HoldState | None, back: Entry) -> bool:
        """A write was acknowledged, and ``back`` was read: whether it is what was written.

        The write was stored in either case: it is recorded once for each state, even if it is
        overwritten at once.
        """
        hold_id, done = known.hold.id, back.data == known.message
        if done:
            self.note(known, back.sequence)
            self._why = ""
        elif self.positions.last_seen(hold_id) is before:
            self.positions.stored(known)
        if before is None or before.lifted != known.lifted:
            detail = "lifted" if known.lifted else ""
            self._emit(EventType.HOLD_DURABLE, **about(known), detail=detail)
        return done

    async def _put(self, known: HoldState, stored: Entry | None) -> int:
        """Write a hold over the stored entry; returns its sequence. Raises as ``StreamLog.put``."""
        if self._was_there(known):
            self._missing.found(known.hold.id, stored)
        expected = stored.sequence if stored is not None else 0
        with self._missing.writing(known.hold.id):
            return await self._stream.put(self._subject(known), known.message, expected=expected)

    def _says(self, raw: bytes) -> HoldState | None:
        """Learn what the stream has in place of a hold; ``None`` if it is not valid."""
        try:
            return self._learn(raw)
        except Untrusted as error:
            self._refusals.record(error)
            return None

    def _subject(self, state: HoldState) -> str:
        return subjects.control_hold(self._me.region, state.hold.scope, state.hold.id)
