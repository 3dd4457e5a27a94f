"""What a boot knows when nothing is wrong: leases whose end no test's clock reaches."""

from __future__ import annotations

from typing import Final

from kcm_killswitch.model.freshness import Knowledge
from kcm_killswitch.model.log_position import NOWHERE, Mark
from kcm_killswitch.model.timing import Timing

HOUR_S: Final = 3600.0

LONG: Final = Timing(partition_grace_s=HOUR_S, hyok_grace_s=HOUR_S, l1_lease_s=HOUR_S)


def knowing(now: float, *others: str, timing: Timing = LONG) -> Knowledge:
    """A boot that wrote, read back, and heard of these regions, all at ``now``."""
    knowledge = Knowledge(timing)
    knowledge.lease.length_s = HOUR_S  # type: ignore[misc] # longer than any system may have it
    renew(knowledge, now, *others)
    return knowledge


def renew(knowledge: Knowledge, now: float, *others: str) -> Mark:
    """Write and read back; hear of these regions."""
    sequence = knowledge.lease.seen + 1
    mark = Mark(sequence, sequence.to_bytes(16, "big"))
    assert knowledge.wrote(now, knowledge.lease.seen, mark)
    assert knowledge.leased(mark, own=True)
    knowledge.delivered(sequence)
    for other in others:
        assert knowledge.fenced(other, mark, NOWHERE)
    return mark
