"""What this region's stream has of a hold, and which incarnations are registered there.

A Core that states facts first catches up with the stream, so the facts are of a log position that
began after the question arrived.
"""

from __future__ import annotations

from typing import Final

from kcm_runtime.host import Host
from kcm_runtime.roster.follower import RosterFollower
from kcm_schemas.control import Incarnation

from kcm_killswitch.model.completeness import RegionFacts
from kcm_killswitch.model.control_lease import FOREVER
from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.replica.control_reader import ControlReader
from kcm_killswitch.replica.hold_replicator import HoldReplicator


class HoldFacts:
    """Answers questions about the durability of holds in this region."""

    def __init__(
        self,
        host: Host,
        replica_state: ReplicaState,
        *,
        replicator: HoldReplicator,
        reader: ControlReader,
        rosters: RosterFollower,
    ) -> None:
        self._me: Final = host.me
        self._clock: Final = host.clock
        self._revocations: Final = replica_state.revocations
        self._freshness: Final = replica_state.freshness
        self._replicator: Final = replicator
        self._reader: Final = reader
        self._rosters: Final = rosters

    @property
    def knows_registry(self) -> bool:
        """Whether every Core of the region shows the tenants and links that are known here."""
        return self._freshness.registry.until(self._clock.elapsed()) == FOREVER

    def durable_at(self, hold_id: bytes) -> int:
        """The sequence at which this region has the current state of a hold; 0 if it has not.

        ``hold_id`` may be unknown.
        """
        state = self._revocations.holds.get(hold_id)
        return 0 if state is None else self._replicator.place(state)

    async def looked_up(self, hold_id: bytes) -> int:
        """The same, after the stream's leader confirmed that it still has the hold.

        Raises ``unavailable``.
        """
        await self._replicator.verify(hold_id)
        return self.durable_at(hold_id)

    def stored_since(self, state: HoldState) -> float:
        """The time since which this state of a hold is in the stream; infinity if it is not."""
        place = self._replicator.placed(state)
        return float("inf") if place is None else place.noted

    async def incarnations(self) -> list[Incarnation]:
        """The registered incarnations, read after a lease entry of ours. Raises ``unavailable``."""
        await self._reader.caught_up()
        return self._reader.leases.incarnations.registered(self._clock.elapsed())

    async def of(self, hold_id: bytes) -> tuple[int, RegionFacts]:
        """The stream's position, and the registered incarnations and the hold's state as of it.

        ``hold_id`` may be unknown. The leader is asked whether the stream still has the hold,
        because a damaged disk loses acknowledged entries silently. The hold's position is looked up
        *before* the incarnations are read. In the other order, an incarnation that began in between
        would be missing, and the kill would be complete without it. The hold is not durable yet if
        its position changed meanwhile, if more incarnations were refused than there is room for, or
        if the stream lacks the roster by which the hold counts: another Core of the region may then
        consider it lifted. Raises ``unavailable``.
        """
        await self._replicator.verify(hold_id)
        before = self.durable_at(hold_id)
        position = await self._reader.caught_up()
        now, incarnations = self._clock.elapsed(), self._reader.leases.incarnations
        state = self._revocations.holds.get(hold_id)
        place = None if state is None else self._replicator.placed(state)
        judged_since = self._rosters.stored_since
        if state is None or place is None or judged_since > now:
            return position.sequence, RegionFacts(0, incarnations.registered(now), settled=False)
        if place.sequence != before or before >= position.sequence:
            return position.sequence, RegionFacts(0, incarnations.registered(now), settled=False)
        watched_s = 0.0 if place.moved else incarnations.watch.before_s(before, place.noted)
        found = incarnations.registered(now, before)
        durable_at = before if incarnations.whole(now) else 0
        return position.sequence, RegionFacts(
            durable_at,
            found,
            now - max(place.noted, judged_since),
            watched_s,
            self._revocations.reached(state),
            settled=self.knows_registry,
            roster=self._me.rosters.version,
        )
