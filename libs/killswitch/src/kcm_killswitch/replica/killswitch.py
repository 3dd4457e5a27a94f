"""The kill switch of one instance: two inputs, one set of holds, and the purge before all else.

A hold or lift arrives by broadcast (fast, across regions, not stored) or through the region's
control stream (durable, replayed at the start of every incarnation). The callback does the
following before any await: verify, join, raise generations, purge. Tasks do the rest: they send a
receipt, write audit events and, in a Core, write the hold to the control stream until the stream
acknowledges it, so that nothing is lost if the issuer dies.

``KillSwitch`` is the facade: it composes the parts, starts and ends them, and passes calls on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from kcm_runtime.audit.rejection_log import RejectionLog
from kcm_runtime.changes import Changes
from kcm_runtime.host import Host
from kcm_runtime.logs import fields
from kcm_runtime.nats.ports import PubSub, StreamLog
from kcm_runtime.roster.follower import RosterFollower
from kcm_schemas.audit import EventType
from kcm_schemas.control import Incarnation

from kcm_killswitch.model.completeness import RegionFacts
from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.incarnations import Incarnations
from kcm_killswitch.model.lift_pages import Page, Pages, Place
from kcm_killswitch.model.log_position import LogPosition
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.replica.archived_holds import Archived
from kcm_killswitch.replica.control_reader import ControlReader, OnAttestation, OnPeerLease
from kcm_killswitch.replica.hold_broadcasts import HoldBroadcasts
from kcm_killswitch.replica.hold_facts import HoldFacts
from kcm_killswitch.replica.hold_keeper import HoldKeeper
from kcm_killswitch.replica.hold_store_port import HoldStore
from kcm_killswitch.replica.purge import purge_each

log = logging.getLogger(__name__)


class KillSwitch:
    """Feeds ``Revocations`` and ``Freshness`` from the bus; purges by ``purge(tenant) -> keys``.

    Its parts are public so that the simulation and tests can observe and exchange them. Services
    use the methods.
    """

    def __init__(
        self,
        host: Host,
        replica_state: ReplicaState,
        *,
        stream: StreamLog,
        hold_store: HoldStore,
        control_bus: PubSub,
        purge: Callable[[str], int],
    ) -> None:
        self._host: Final = host
        self._state: Final = replica_state
        self._stream: Final = stream
        self._hold_store: Final = hold_store
        self._control_bus: Final = control_bus
        self._purge: Final = purge
        self._changes: Final = Changes()
        self._refusals: Final = RejectionLog("control", host.emit)
        self.rosters: Final = RosterFollower(
            host.me, stream, self._refusals, host.emit, host.randomness, host.clock
        )
        host.me.rosters.listen(self._judge_again)
        self.holds: Final = HoldKeeper(
            host,
            replica_state,
            stream=stream,
            hold_store=hold_store,
            control_bus=control_bus,
            purge=purge,
            refusals=self._refusals,
            changes=self._changes,
        )
        self.broadcasts: Final = self._listener()
        self.reader: Final = self._reader()
        self.hold_facts: Final = HoldFacts(
            host,
            replica_state,
            replicator=self.holds.replicator,
            reader=self.reader,
            rosters=self.rosters,
        )

    def _listener(self) -> HoldBroadcasts:
        return HoldBroadcasts(
            self._host,
            control_bus=self._control_bus,
            known=self.holds.applier.believes,
            take=self.holds.heard,
        )

    def _reader(self) -> ControlReader:
        return ControlReader(
            self._host,
            self._state,
            stream=self._stream,
            holds=self.holds,
            rosters=self.rosters,
            refusals=self._refusals,
            changes=self._changes,
            unheard=self._move,
        )

    async def start(self) -> None:
        """Load stored holds, subscribe, replay the control stream, then register.

        This order leaves no gap: broadcasts are received during the replay. Stored holds that the
        stream lacks are written to the stream. Raises ``ConfigError`` if the stored holds cannot be
        read, or if this instance may not act.
        """
        await self.rosters.fetch()
        self.holds.recall()
        await self.broadcasts.start()
        await self.reader.start()
        self.holds.start()
        self.rosters.mend()
        self.reader.keep()

    async def close(self) -> None:
        """Unsubscribe, and state that this incarnation holds no key any more."""
        self.broadcasts.close()
        self.reader.stop()
        self.holds.close()
        await self.rosters.close()
        await self.reader.close()
        await self._hold_store.close()
        self._refusals.close()

    # Statements and orders.

    def learn(self, raw: bytes) -> bytes:
        """Apply a hold, a lift or a page of lifts; returns its id or key. Raises ``Untrusted``."""
        return self.holds.learn(raw)

    def verify(self, raw: bytes) -> HoldState:
        """Verify an order to hold or to lift, once; raises ``Untrusted``.

        ``issue`` and ``broadcast`` take the result.
        """
        return self.holds.applier.verify(raw)

    def issue(self, state: HoldState) -> None:
        """Apply a verified order: purge first, then write it to the stream at once.

        It is not broadcast yet: see ``broadcast``.
        """
        self.holds.issue(state)

    async def broadcast(self, state: HoldState) -> None:
        """Send a hold, or its lift, to every instance of every region; raises ``unavailable``."""
        await self.broadcasts.send(state)

    # What the region's stream has.

    def durable_at(self, hold_id: bytes) -> int:
        """The sequence at which this region has the current state of a hold; 0 if it has not.

        ``hold_id`` may be unknown.
        """
        return self.hold_facts.durable_at(hold_id)

    async def looked_up(self, hold_id: bytes) -> int:
        """The same, after the stream's leader confirmed that it still has the hold.

        Raises ``unavailable``.
        """
        return await self.hold_facts.looked_up(hold_id)

    def stored_since(self, state: HoldState) -> float:
        """The time since which this state of a hold is in the stream; infinity if it is not."""
        return self.hold_facts.stored_since(state)

    async def facts(self, hold_id: bytes) -> tuple[int, RegionFacts]:
        """What this region knows of a hold, as of the position: see ``HoldFacts.of``."""
        return await self.hold_facts.of(hold_id)

    async def incarnations(self) -> list[Incarnation]:
        """The registered incarnations, read after a lease entry of ours. Raises ``unavailable``."""
        return await self.hold_facts.incarnations()

    def highest_hold(self) -> LogPosition:
        """The highest sequence in the region's stream at which a known hold is stored, and its id.

        Sequence 0 and zeros if there is none.
        """
        return self.holds.replicator.highest()

    @property
    def why_not_durable(self) -> str:
        """The reason why the stream did not acknowledge the last hold; empty if it did."""
        return self.holds.replicator.why

    @property
    def all_durable(self) -> bool:
        """Whether the region's stream has every known hold."""
        return self.holds.replicator.complete

    @property
    def unsent(self) -> int:
        """Receipts that are being sent, and holds that are being written to the stream."""
        return self.holds.receipts.unsent + self.holds.replicator.unwritten

    @property
    def knows_registry(self) -> bool:
        """Whether every Core of the region shows the tenants and links that are known here."""
        return self.hold_facts.knows_registry

    @property
    def highest_roster(self) -> int:
        """The highest roster version that this region is known to have."""
        return self.rosters.highest

    # Pages of lifted holds.

    @property
    def lift_pages(self) -> Pages:
        """The pages that count; only this kill switch changes them."""
        return self.holds.pages.pages

    async def fetch_page(self, place: Place) -> bytes:
        """All ids of one place, including those in the stream; raises ``unavailable``."""
        return await self.holds.pages.fetch(place)

    async def archived(self, least: bytes, most: bytes, count: int) -> Archived:
        """At most ``count`` holds that pages end, by id, both bounds included.

        Only those whose statements this Core has, in the state in which they were archived.
        """
        return await self.holds.pages.archive.between(least, most, count)

    def page_stored_at(self, state: HoldState) -> int:
        """The sequence in the stream of a page that ends this hold; 0 if there is none."""
        return self.holds.pages.stored_at(state)

    def ended_by(self, state: HoldState) -> Page | None:
        """The first page that ends a hold; it is the same on every instance."""
        return self.holds.pages.ended_by(state)

    # The lease, and who else is there.

    @property
    def registered(self) -> Incarnations:
        """The incarnations of the region as their lease entries were read so far."""
        return self.reader.leases.incarnations

    async def renew(self) -> LogPosition:
        """Write a lease entry, not begun before this call; returns its acknowledged position.

        Raises ``unavailable``.
        """
        return await self.reader.leases.renew()

    async def caught_up(self) -> LogPosition:
        """Read everything that was durable at the call; returns the log position that proves it.

        Raises ``unavailable``.
        """
        return await self.reader.caught_up()

    async def heard_regions(self, timeout_s: float) -> None:
        """Wait until every other active region was heard since the start, or until the timeout.

        Until then, no tenant whose policy needs a peer lease of such a region is served.
        """

        def unheard() -> list[str]:
            me, revocations = self._host.me, self._state.revocations
            others = [other for other in me.verifier.regions if other != me.region]
            wanted = [other for other in others if not revocations.retired(other)]
            return [other for other in wanted if not self._state.freshness.knows(other)]

        if not await self._changes.until(lambda: not unheard(), timeout_s):
            for other in unheard():
                log.warning(
                    "no peer lease on another region yet: tenants that need one are not served",
                    extra=fields(region=other),
                )

    # Waiting and callbacks.

    def listen(self, on_peer_lease: OnPeerLease, on_attestation: OnAttestation) -> None:
        """Set the callbacks for valid peer leases and attestations, after they took effect."""
        self.reader.listen(on_peer_lease, on_attestation)

    def on_registry(self, differs: Callable[[], None]) -> None:
        """Set the callback for a Core of the region that shows a registry other than ours."""
        self.reader.on_registry(differs)

    async def until_durable(self, hold_id: bytes, timeout_s: float) -> bool:
        """Wait until this region's stream has the current state of a hold."""
        return await self.until(lambda: self.durable_at(hold_id) > 0, timeout_s)

    async def until(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for a condition on the replica's state; it is evaluated after each change."""
        return await self._changes.until(holds, timeout_s)

    def _judge_again(self, names: frozenset[str]) -> None:
        """The roster or the endorsements changed: first purge for what is in force again."""
        if not self._host.me.acts:
            self._cease()
        self.holds.judge_again(names)
        self.reader.replay.changed()

    def _cease(self) -> None:
        """Stop serving: this instance is retired or was removed from the roster."""
        name, version = self._host.me.name, self._host.me.rosters.version
        log.critical(
            "this instance may not act any more, by the roster: its keys are purged, and nothing "
            "is served",
            extra=fields(region=self._host.me.region, instance=name, version=version),
        )
        _, failed = purge_each(self._purge, self._state.revocations.everybody())
        self.reader.leases.cease()
        self._host.emit(EventType.INSTANCE_RETIRED, count=len(failed), detail=name)

    async def _move(self) -> None:
        await self._stream.move()
        await self._control_bus.move()
