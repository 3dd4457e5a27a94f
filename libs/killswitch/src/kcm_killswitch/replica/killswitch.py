"""The kill switch of one instance: two inputs, one set of holds, and the purge before all else.

A hold or lift arrives by broadcast (fast, across regions, not stored) or through the region's
control stream (durable, replayed at the start of every incarnation). The callback does the
following before any await: verify, join, raise generations, purge. Tasks do the rest: they send a
receipt, write audit events and, in a Core, write the hold to the control stream until the stream
acknowledges it, so that nothing is lost if the issuer dies.

An entry that does not verify is ignored and recorded. If it replaced a known hold, a Core writes
that hold again, because incarnations learn from the stream.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from kcm_runtime.audit.pacing import Paced
from kcm_runtime.audit.rejection_log import RejectionLog
from kcm_runtime.changes import Changes
from kcm_runtime.config import ConfigError
from kcm_runtime.host import Host
from kcm_runtime.nats.ports import Delivery, Entry, PubSub, StreamLog, Subscription
from kcm_runtime.roster.follower import RosterFeed
from kcm_schemas import subjects
from kcm_schemas.audit import EventType
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import Incarnation, KeyUseAttestation, PeerLease
from kcm_trust.verify import Forged, Retired, Untrusted

from kcm_killswitch.model.completeness import RegionFacts
from kcm_killswitch.model.control_lease import FOREVER
from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.log_position import LogPosition
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.replica.entry_expiry import EntryExpiry
from kcm_killswitch.replica.hold_applier import HoldApplier, about, said
from kcm_killswitch.replica.hold_replicator import HoldReplicator
from kcm_killswitch.replica.hold_store_port import HoldStore
from kcm_killswitch.replica.lease_keeper import RETRY_S, LeaseKeeper
from kcm_killswitch.replica.lift_page_keeper import LiftPages, is_page
from kcm_killswitch.replica.purge import purge_each
from kcm_killswitch.replica.receipts import ReceiptSender
from kcm_killswitch.replica.stream_audit import StreamAudit
from kcm_killswitch.replica.stream_replay import StreamReplay
from kcm_killswitch.replica.verification_budget import Waiting

log = logging.getLogger(__name__)

READ_BACK_S: Final = 5.0
"""Seconds to wait for our own lease entry to be read back: it arrives at once or not at all."""

LOOK_AGAIN_S: Final = 0.1
"""Seconds between attempts to verify waiting broadcasts, whose source exceeded its budget of
statements that did not count."""

OnPeerLease = Callable[[PeerLease], None]
OnAttestation = Callable[[KeyUseAttestation], None]


class KillSwitch:
    """Feeds ``Revocations`` and ``Freshness`` from the bus; purges by ``purge(tenant) -> keys``."""

    def __init__(
        self,
        host: Host,
        state: ReplicaState,
        *,
        stream: StreamLog,
        hold_store: HoldStore,
        control_bus: PubSub,
        purge: Callable[[str], int],
    ) -> None:
        self._me: Final = host.me
        self._stream: Final = stream
        self._hold_store: Final = hold_store
        self._control_bus: Final = control_bus
        self._revocations: Final = state.revocations
        self._freshness: Final = state.freshness
        self._clock: Final = host.clock
        self._emit: Final = host.emit
        self._refusals: Final = RejectionLog("control", host.emit)
        self._changes: Final = Changes()
        self._tasks: set[asyncio.Task[None]] = set()
        self._recalling = False
        self._issuing = False
        self._closing = False
        self._on_registry: Callable[[], None] = _nothing
        self._broadcasts: Final = Waiting(self._heard)
        self._looking: asyncio.TimerHandle | None = None
        self._listeners: tuple[OnPeerLease, OnAttestation] = (_ignore, _ignore)
        self._purge: Final = purge
        self.rosters: Final = RosterFeed(
            host.me, stream, self._refusals, host.emit, host.randomness, host.clock
        )
        host.me.rosters.listen(self._judge_again)
        self.learning: Final = HoldApplier(
            host, state, purge=purge, changed=self._changed, refused=self._refusals.record
        )
        self._receipts: Final = ReceiptSender(
            host,
            state,
            control_bus=control_bus,
            applier=self.learning,
            hold_store=hold_store,
            spawn=self._spawn,
        )
        self._durable: Final = HoldReplicator(
            host,
            state,
            stream=stream,
            learn=self.learning.learn,
            refusals=self._refusals,
            changes=self._changes,
        )
        self._clearings: Final = Paced()
        self._clearing: Final = EntryExpiry(host, stream=stream, done=self._cleared)
        self._expiring: Final = EntryExpiry(host, stream=stream, done=self._expired)
        self.lifts: Final = LiftPages(
            host,
            state,
            stream=stream,
            hold_store=hold_store,
            learn=self.learning.learn,
            examine=self.learning.examine,
            ended=self._ended,
            expire=self._expiring.clear,
        )
        self._looking_through: Final = StreamAudit(
            host.me, stream, (self._durable, self.lifts, self.rosters)
        )
        self.record: Final = LeaseKeeper(
            host,
            state,
            stream=stream,
            judged=lambda: self._rereading.judged,
            registry_differs=self._registry_differs,
            went_back=self._read_again,
            changed=self._changes.notify,
            unheard=self._move,
        )
        self._following: Final[Subscription] = stream.follow(self)
        self._rereading: Final = StreamReplay(
            host.me.rosters, stream, self._take_again, self.record.renew
        )
        hold_store.listen(self._on_hold_store)

    async def start(self) -> None:
        """Load stored holds, subscribe, replay the control stream, then register.

        This order leaves no gap: broadcasts are received during the replay. Stored holds that the
        stream lacks are written to the stream. Raises ``ConfigError`` if the stored holds cannot be
        read, or if this instance may not act.
        """
        await self.rosters.fetch()
        self._recall()
        await self._control_bus.subscribe(subjects.broadcast_holds(), self._on_broadcast)
        self._rereading.begin()
        await self._following.start()
        # The first lease entry cannot name its own sequence; the second one does.
        for _ in range(2):
            await self._catch_up_somehow()
        self.learning.live = True
        self._durable.mend()
        self.rosters.mend()
        self.lifts.mend()
        self._looking_through.start()
        self._spawn(self.record.keep())

    async def close(self) -> None:
        """Unsubscribe, and state that this incarnation holds no key any more."""
        self._closing = True
        if self._looking is not None:
            self._looking.cancel()
        self._looking_through.close()
        self._rereading.close()
        self._durable.close()
        self._clearing.close()
        self._expiring.close()
        self._clearings.close()
        self.lifts.close()
        self._hold_store.listen(_ignore)
        await self.rosters.close()
        for task in list(self._tasks):
            task.cancel()
        await self.record.end()
        await self._following.close()
        await self._hold_store.close()
        self._refusals.close()

    def learn(self, raw: bytes) -> bytes:
        """Apply a hold, a lift or a page of lifts; returns its id or key. Raises ``Untrusted``."""
        if is_page(raw):
            return self.lifts.take(raw)
        return self.learning.learn(raw).hold.id

    def verify(self, raw: bytes) -> HoldState:
        """Verify an order to hold or to lift, once; raises ``Untrusted``.

        ``issue`` and ``broadcast`` take the result.
        """
        return self.learning.verify(raw)

    def issue(self, record: HoldState) -> None:
        """Apply a verified order: purge first, then write it to the stream at once.

        It is not broadcast yet: see ``broadcast``. An order is one audit event, even if its hold
        arrived earlier by another way or the operator repeats an order that got no answer.
        """
        known = self._revocations.holds.get(record.hold.id)
        self._issuing = True
        try:
            self.learning.apply(record)
        finally:
            self._issuing = False
        news = known is None or (record.lifted and not known.lifted)
        if self.learning.ordered(record) or news:
            self._ordered(record)

    def listen(self, on_peer_lease: OnPeerLease, on_attestation: OnAttestation) -> None:
        """Set the callbacks for valid peer leases and attestations, after they took effect."""
        self._listeners = (on_peer_lease, on_attestation)

    def on_registry(self, differs: Callable[[], None]) -> None:
        """Set the callback for a Core of the region that shows a registry other than ours."""
        self._on_registry = differs

    def durable_at(self, hold_id: bytes) -> int:
        """The sequence at which this region has the current state of a hold; 0 if it has not.

        ``hold_id`` may be unknown.
        """
        record = self._revocations.holds.get(hold_id)
        return 0 if record is None else self._durable.place(record)

    async def looked_up(self, hold_id: bytes) -> int:
        """The same, after the stream's leader confirmed that it still has the hold.

        Raises ``unavailable``.
        """
        await self._durable.verify(hold_id)
        return self.durable_at(hold_id)

    def stored_since(self, record: HoldState) -> float:
        """The time since which this state of a hold is in the stream; infinity if it is not."""
        place = self._durable.placed(record)
        return float("inf") if place is None else place.noted

    @property
    def why_not_durable(self) -> str:
        """The reason why the stream did not acknowledge the last hold; empty if it did."""
        return self._durable.why

    @property
    def all_durable(self) -> bool:
        """Whether the region's stream has every known hold."""
        return self._durable.complete

    async def caught_up(self) -> LogPosition:
        """Read everything that was durable at the call; returns the log position that proves it.

        This writes our own lease entry, and waits until the entry is read back after everything
        before it. Raises ``unavailable``.
        """
        mark = await self.record.renew()
        era = self._freshness.era
        await self._following.reached(mark.sequence)
        # A later entry of ours may replace it before delivery; or the stream was rolled back.
        await self._changes.until(
            lambda: era != self._freshness.era or self._freshness.read_back(mark), READ_BACK_S
        )
        if era != self._freshness.era or not self._freshness.read_back(mark):
            raise KcmError(Code.UNAVAILABLE, "our own lease entry was not read back in time")
        return mark

    async def heard_regions(self, timeout_s: float) -> None:
        """Wait until every other active region was heard since the start, or until the timeout.

        Until then, no tenant whose policy needs a peer lease of such a region is served.
        """

        def unheard() -> list[str]:
            others = [other for other in self._me.verifier.regions if other != self._me.region]
            wanted = [other for other in others if not self._revocations.retired(other)]
            return [other for other in wanted if not self._freshness.knows(other)]

        if not await self._changes.until(lambda: not unheard(), timeout_s):
            log.warning("no peer lease yet of: %s", ", ".join(unheard()))

    async def incarnations(self) -> list[Incarnation]:
        """The registered incarnations, read after a lease entry of ours. Raises ``unavailable``."""
        await self.caught_up()
        return self.record.incarnations.on_record(self._clock.elapsed())

    async def facts(self, hold_id: bytes) -> tuple[int, RegionFacts]:
        """The stream's position, and the registered incarnations and the hold's state as of it.

        ``hold_id`` may be unknown. The leader is asked whether the stream still has the hold,
        because a damaged disk loses acknowledged entries silently. The hold's position is looked up
        *before* the incarnations are read. In the other order, an incarnation that began in between
        would be missing, and the kill would be complete without it. The hold is not durable yet if
        its position changed meanwhile, if more incarnations were refused than there is room for, or
        if the stream lacks the roster by which the hold counts: another Core of the region may then
        consider it lifted. Raises ``unavailable``.
        """
        await self._durable.verify(hold_id)
        before = self.durable_at(hold_id)
        mark = await self.caught_up()
        now, incarnations = self._clock.elapsed(), self.record.incarnations
        record = self._revocations.holds.get(hold_id)
        place = None if record is None else self._durable.placed(record)
        judged_since = self.rosters.stored_since
        if record is None or place is None or judged_since > now:
            return mark.sequence, RegionFacts(0, incarnations.on_record(now), settled=False)
        if place.sequence != before or before >= mark.sequence:
            return mark.sequence, RegionFacts(0, incarnations.on_record(now), settled=False)
        watched_s = 0.0 if place.moved else incarnations.watch.before_s(before, place.noted)
        found = incarnations.on_record(now, before)
        durable_at = before if incarnations.whole(now) else 0
        return mark.sequence, RegionFacts(
            durable_at,
            found,
            now - max(place.noted, judged_since),
            watched_s,
            self._revocations.reached(record),
            settled=self.knows_registry,
            roster=self._me.rosters.version,
        )

    @property
    def knows_registry(self) -> bool:
        """Whether every Core of the region shows the tenants and links that are known here."""
        return self._freshness.registry.until(self._clock.elapsed()) == FOREVER

    def highest_hold(self) -> LogPosition:
        """The highest sequence in the region's stream at which a known hold is stored, and its id.

        Sequence 0 and zeros if there is none.
        """
        return self._durable.highest()

    async def broadcast(self, record: HoldState) -> None:
        """Send a hold, or its lift, to every instance of every region; raises ``unavailable``."""
        hold = record.hold
        subject = subjects.broadcast_hold(self._me.region, hold.scope, hold.id)
        await self._control_bus.publish(subject, record.message)
        await self._control_bus.flush()

    async def until_durable(self, hold_id: bytes, timeout_s: float) -> bool:
        """Wait until this region's stream has the current state of a hold."""
        return await self.until(lambda: self.durable_at(hold_id) > 0, timeout_s)

    async def until(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for a condition on the replica's state; it is evaluated after each change."""
        return await self._changes.until(holds, timeout_s)

    # The methods of a follower of the region's stream.

    def anchor(self) -> int:
        """The sequence of our last lease entry; entries above it may differ after a rollback."""
        return self._freshness.anchor

    def resumed(self, behind: int) -> None:
        """Entries above the anchor count when they are delivered again."""
        self.record.incarnations.resumed(behind, self._clock.elapsed())
        self._freshness.resumed(behind)
        self._durable.forget(behind)
        self.lifts.forget(behind)
        self.rosters.forget(behind)
        self._looking_through.hurry()

    def went_back(self) -> None:
        """Forget all freshness: after a rollback, none of it is valid."""
        self.record.restart()
        self._changes.notify()

    def receive(self, entry: Entry) -> None:
        """Process an entry of the stream, of any kind; nothing here waits."""
        self.record.incarnations.delivered(entry.sequence, self._clock.elapsed())
        try:
            match subjects.control_noun(entry.subject):
                case "hold":
                    self._on_hold(entry)
                case "lifts":
                    self.lifts.receive(entry)
                case "lease":
                    self.record.take(entry)
                case "peer-lease":
                    self._on_peer_lease(self._me.verifier.peer_lease(entry.data))
                case "key-use" if self._listeners[1] is not _ignore:
                    # A Gateway does not use them, and they are most of the entries.
                    self._on_attestation(self._me.verifier.key_use(entry.data))
                case "roster" | "lasting":
                    self.rosters.receive(entry)
        except Forged as error:
            self._refusals.record(error)
            self._clearing.clear(entry)
        except Untrusted as error:
            self._refused(error, entry)
        if not self._freshness.delivered(entry.sequence):
            self.record.lost("another entry is where ours was acknowledged: a rollback")
        self._changes.notify()

    def _refused(self, error: Untrusted, entry: Entry) -> None:
        """Record the refusal, unless the signer may have retired only after it signed."""
        before = not self.learning.live or self.rosters.precedes(entry.sequence)
        if not (before and isinstance(error, Retired)):
            self._refusals.record(error)

    async def _catch_up_somehow(self) -> None:
        """Catch up with retries: without a current lease entry an instance must not serve."""
        while True:
            if not self._me.acts:
                raise ConfigError("this instance is retired, or not on the roster any more")
            try:
                await self.caught_up()
            except KcmError as error:
                log.warning("this incarnation is not on record yet: %s", error.code.value)
                await asyncio.sleep(RETRY_S)
            else:
                return

    def _recall(self) -> None:
        self._recalling = True
        for raw in self._hold_store.recall():
            try:
                self.learn(raw)
            except Untrusted as error:
                self._refusals.record(error)
        self._recalling = False

    def _read_again(self) -> None:
        self._durable.forget()
        self.lifts.forget()
        self._following.again()

    def _registry_differs(self) -> None:
        self._on_registry()

    async def _move(self) -> None:
        await self._stream.move()
        await self._control_bus.move()

    def _on_peer_lease(self, peer_lease: PeerLease) -> None:
        if peer_lease.region != self._me.region:
            raise Untrusted("a peer lease of another region")
        if peer_lease.roster > self._rereading.judged:
            return  # a hold of the other region may count as lifted only here
        mark, highest = (
            LogPosition(peer_lease.position, peer_lease.nonce),
            LogPosition(peer_lease.stored, peer_lease.hold),
        )
        if self._freshness.fenced(peer_lease.other, mark, highest):
            self._listeners[0](peer_lease)

    def _on_attestation(self, attestation: KeyUseAttestation) -> None:
        if attestation.region != self._me.region:
            raise Untrusted("an attestation of another region")
        self._listeners[1](attestation)

    def _on_hold(self, entry: Entry) -> None:
        place = subjects.control_hold_id(entry.subject)
        if not entry.data:
            # The message expires: a page ends this hold, or the message could never be valid.
            self._durable.lost(place, entry)
            return
        try:
            record = self.learning.learn(entry.data)
        except Untrusted:
            self._durable.lost(place, entry)
            raise
        hold = record.hold
        if entry.subject != subjects.control_hold(self._me.region, hold.scope, hold.id):
            # The hold that belongs under this subject is not stored any more, nor is this one.
            self._durable.lost(place, entry)
        elif self._revocations.holds.ends(record):
            self._freshness.held(LogPosition(entry.sequence, hold.id))
            self.lifts.superseded(entry, record)
        else:
            self._freshness.held(LogPosition(entry.sequence, hold.id))
            known = self._revocations.holds.get(hold.id) or record
            if known.message == entry.data or known == record:
                self._durable.note(known, entry.sequence)
                if known.message != entry.data:
                    self._durable.replace(hold.id)
            else:
                # The stream returned to an earlier state of this hold: write the join again.
                self._durable.lost(hold.id, entry)
        if not record.lifted:
            self._receipts.answer_once(hold.id)

    async def _on_broadcast(self, message: Delivery) -> None:
        """Process it at once if it is known, or if its source is within its budget."""
        if self.learning.believes(message.data):
            self._heard(message.data)
        elif not self._broadcasts.take(
            subjects.speaker(message.subject), message.data, self._clock.elapsed()
        ):
            self._look_again()

    def _heard(self, raw: bytes) -> bool:
        """Apply a broadcast hold or lift; returns whether it was new."""
        before = self._revocations.holds
        try:
            record = self.learning.learn(raw)
        except Untrusted as error:
            self._refusals.record(error)
            return False
        if not record.lifted:
            self._receipts.answer(record.hold.id)
        return self._revocations.holds is not before

    def _look_again(self) -> None:
        if self._looking is None and not self._closing:
            loop = asyncio.get_running_loop()
            self._looking = loop.call_later(LOOK_AGAIN_S, self._look)

    def _look(self) -> None:
        self._looking = None
        if not self._broadcasts.again(self._clock.elapsed()):
            self._look_again()

    def _judge_again(self, names: frozenset[str]) -> None:
        """The roster or the endorsements changed: first purge for what is in force again.

        The disk keeps a lift that does not count any more: an endorsement may still list it.
        """
        if not self._me.acts:
            self._cease()
        judged = self.learning.judge_again(names)
        self.lifts.judge_again(names)
        for hold_id in judged:
            record = self._revocations.holds.get(hold_id)
            if record is not None and not record.lifted:
                self.learning.learn(record.message)
                self._receipts.answer(hold_id)
            self._durable.lost(hold_id)
        self._rereading.changed()

    def _take_again(self, entry: Entry) -> None:
        """Process an entry that was delivered before, in case it counts by another roster.

        Its position was noted at that time, or its subject has another entry by now.
        """
        noun = subjects.control_noun(entry.subject)
        if noun not in ("hold", "lifts") or not entry.data:
            return
        try:
            hold_id = self.learn(entry.data)
        except Untrusted:
            return  # no change
        if noun == "hold" and subjects.control_hold_id(entry.subject) == hold_id:
            self._freshness.held(LogPosition(entry.sequence, hold_id))

    def _ended(self, record: HoldState) -> int:
        """A page ends a hold; returns the sequence of the hold's message in the stream."""
        page = self.lifts.ended_by(record)
        self.learning.forget(record, None if page is None else page.place.signer)
        self._receipts.forget(record.hold.id)
        return self._durable.ended(record.hold.id)

    def _expired(self, _: int) -> None:
        self.lifts.sweep()

    def _cleared(self, count: int) -> None:
        if count:
            self._clearings.record("cleared", self._tell_cleared, count)

    def _tell_cleared(self, count: int) -> None:
        log.warning("%d entries of the region's stream, which were no statements, expire", count)
        detail = "entries of the control stream that were no statements"
        self._emit(EventType.STREAM_CLEARED, count=count, detail=detail)

    def _ordered(self, record: HoldState) -> None:
        """Record who placed or lifted a hold, and why."""
        actor, reason = said(self._me, record)
        kind = EventType.HOLD_LIFTED if record.lifted else EventType.HOLD_PLACED
        self._emit(kind, **about(record), actor=actor, detail=reason)

    def _cease(self) -> None:
        """Stop serving: this instance is retired or was removed from the roster."""
        log.critical("%s may not act any more, by the roster: nothing is served", self._me.name)
        _, failed = purge_each(self._purge, self._revocations.everybody())
        self.record.cease()
        self._emit(EventType.INSTANCE_RETIRED, count=len(failed), detail=self._me.name)

    def _changed(self, hold_id: bytes) -> None:
        """A new state was learned and purged for: first send a receipt, then make it durable."""
        self._changes.notify()
        record = self._revocations.holds.get(hold_id)
        if record is None or self._recalling:
            return
        if record.lifted:
            self._receipts.forget(hold_id)
        else:
            self._receipts.answer(hold_id)
        self._durable.keep(hold_id, at_once=self._issuing)
        if not self._hold_store.kept(hold_id, record.message):
            self._hold_store.remember(hold_id, record.message)

    def _on_hold_store(self, hold_id: bytes) -> None:
        """The disk now has a hold, or its archive has a hold that a page ends."""
        self._receipts.kept(hold_id)
        if self._revocations.holds.get(hold_id) is None:
            self.lifts.archived_now(hold_id)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _nothing() -> None:
    """Do nothing: no callback is set."""


def _ignore(_: object) -> None:
    """Ignore the argument: no callback is set."""
