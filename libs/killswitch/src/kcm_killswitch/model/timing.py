"""Every duration of the kill switch, and the bounds that follow from them.

Durations are counted on each instance's own clock, which may run wrong by ``clock_error`` (a part
of one): a duration ``d`` takes between ``d / (1 + e)`` and ``d / (1 - e)`` of true time.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, Final, Literal

from pydantic import ConfigDict

from kcm_killswitch.model.incarnations import GONE_S

ANSWER_MAX_S: Final = 5.0
"""Seconds for which an answer may be accepted, from the sending of its request.

This is the ``D`` of every bound: an answer counts when the receiver accepts it, so the receiver
enforces the limit.
"""

Model = Literal["byok", "hyok"]


@dataclass(frozen=True, slots=True)
class Timing:
    """The durations of one system, in seconds; every instance has to have the same."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    control_lease_s: float = 10.0
    """From an acknowledged write of this incarnation in the region's control stream."""
    renew_every_s: float = 3.0
    """Between those writes: two may fail before the lease ends."""
    partition_grace_s: float = 60.0
    """For which a region continues to serve without a report from a tenant's other region."""
    hyok_grace_s: float = 10.0
    """The same, for HYOK tenants, whose root key is held on the customer's premises."""
    pull_every_s: float = 2.5
    """Between two questions of a region to another one: three may fail within the HYOK grace."""
    l1_lease_s: float = 30.0
    """From the beginning of a successful use of the root key."""
    hyok_l1_lease_s: float = 20.0
    """The same, for a HYOK key; never more than ``l1_lease_s``."""
    probe_interval_s: float = 10.0
    """Between two such uses, unless another Core of the region reports one."""
    probe_jitter: float = 0.2
    """Part of the interval by which a probe may come early."""
    probe_deadline_s: float = 5.0
    """For which a probe waits for an answer."""
    settle_s: float = 60.0
    """For which a key has to be usable again before its hold is lifted."""
    clock_error: float = 0.001
    """Part of one by which a clock may run wrong."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 < getattr(self, field.name) <= 3600:
                raise ValueError(f"{field.name} is more than 0 and at most 3600")
        if self.clock_error > 0.1 or self.probe_jitter >= 1:
            raise ValueError("clock_error is at most 0.1, probe_jitter below 1")
        short = min(self.hyok_grace_s, self.partition_grace_s)
        for every, length in (
            (self.renew_every_s, self.control_lease_s),
            (self.pull_every_s, short),
            (self.probe_interval_s, self.l1_lease_of("hyok")),
        ):
            if every * 2 > length:
                raise ValueError("what is renewed has to be renewed twice before it ends")
        if self.incarnation_bound_s(self.control_lease_s) >= GONE_S:
            raise ValueError("control_lease_s has to end before its lease entry expires")

    def grace_s(self, model: Model) -> float:
        """The partition grace of tenants whose link is of this model."""
        return self.hyok_grace_s if model == "hyok" else self.partition_grace_s

    def l1_lease_of(self, model: Model) -> float:
        """The lease of keys whose link is of this model."""
        return min(self.hyok_l1_lease_s, self.l1_lease_s) if model == "hyok" else self.l1_lease_s

    def probe_window_s(self, model: Model) -> float:
        """Seconds within which an open key has to be used again, so that its lease does not end.

        The use itself takes time, and a lease runs from this incarnation's write before it.
        """
        spent = self.probe_deadline_s + self.renew_every_s
        return max(self.probe_interval_s, self.l1_lease_of(model) - spent)

    def incarnation_bound_s(self, lease_s: float) -> float:
        """Seconds after which an instance with this lease serves nothing from before a stored hold.

        Counted from when its stream had the hold. It is ``(lease + D)(1 + e) / (1 - e)`` on the
        clock of the process that waits: the incarnation's clock may run slow, and this one fast. It
        is never less than by this instance's own lease.
        """
        return self._waited(max(lease_s, self.control_lease_s))

    def surely_s(self, told_ms: int) -> float:
        """Seconds that have surely passed when a clock, which may run fast, counted ``told_ms``."""
        return told_ms / 1000 * (1 - self.clock_error)

    def peer_lease_bound_s(self, model: Model) -> float:
        """The same across regions, from when the hold was durable in enough of them."""
        return self._waited(self.grace_s(model))

    def _waited(self, lease_s: float) -> float:
        return (lease_s + ANSWER_MAX_S) * (1 + self.clock_error) / (1 - self.clock_error)
