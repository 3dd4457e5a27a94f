"""What an incarnation knows when nothing is wrong: leases whose end no test's clock reaches."""

from __future__ import annotations

from typing import Final

from kcm_killswitch.model.admission import Admission
from kcm_killswitch.model.control_lease import ControlLease
from kcm_killswitch.model.freshness import Freshness
from kcm_killswitch.model.log_position import NOWHERE, LogPosition
from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.model.revocations import Revocations
from kcm_killswitch.model.timing import Timing

HOUR_S: Final = 3600.0

LONG: Final = Timing(partition_grace_s=HOUR_S, hyok_grace_s=HOUR_S, l1_lease_s=HOUR_S)


def knowing(now: float, *others: str, timing: Timing = LONG) -> Freshness:
    """An incarnation that wrote, read back, and heard of these regions, all at ``now``."""
    freshness = Freshness(timing)
    freshness.lease.length_s = HOUR_S  # type: ignore[misc] # longer than any system may have it
    renew(freshness, now, *others)
    return freshness


def primed(now: float, region: str, *others: str, timing: Timing = LONG) -> ReplicaState:
    """The state of a replica in ``region`` that knows all of that, and no tenant."""
    registry = Registry()
    revocations = Revocations(registry, region)
    freshness = knowing(now, *others, timing=timing)
    admission = Admission(freshness, revocations, registry, region)
    return ReplicaState(registry, revocations, freshness, admission)


def renew(freshness: Freshness, now: float, *others: str) -> LogPosition:
    """Write and read back; hear of these regions."""
    sequence = freshness.lease.seen + 1
    mark = LogPosition(sequence, sequence.to_bytes(16, "big"))
    assert freshness.wrote(now, freshness.lease.seen, mark)
    assert freshness.leased(mark, own=True)
    freshness.delivered(sequence)
    for other in others:
        assert freshness.peer_leased(other, mark, NOWHERE)
    return mark


def leased(*writes: tuple[float, int], length: float = 10.0) -> ControlLease:
    """A lease with own writes, each ``(t0, sequence)``, acknowledged and delivered."""
    lease = ControlLease(length)
    for t0, sequence in writes:
        assert lease.wrote(t0, lease.seen, sequence)
    lease.delivered(writes[-1][1])
    return lease
