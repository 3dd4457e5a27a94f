"""Ways to break the system on purpose: the simulation has to notice each of them.

A variant replaces a part of one instance by a naive one. What no variant is noticed by is not
checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from kcm_control.boots import BootRecords
from kcm_control.fences import Fences
from kcm_control.leases import FOREVER, ControlLease
from kcm_control.proofs import ProofKey, Proofs
from kcm_control.revocation import Revocations
from kcm_schemas.control import Boot
from kcm_schemas.registry import FencePolicy

from tests.simulation.clocks import SimClock

if TYPE_CHECKING:
    from tests.simulation.instance import Instance


class EndlessLease(ControlLease):
    """Believes to know every hold for ever."""

    def until(self) -> float:
        return FOREVER


class LeaseFromTheAcknowledgement(ControlLease):
    """Counts from when the write was acknowledged, and not from when it was sent."""

    def __init__(self, length_s: float, clock: SimClock) -> None:
        super().__init__(length_s)
        self._clock: Final = clock

    def wrote(self, t0: float, seen: int, sequence: int) -> bool:
        return super().wrote(self._clock.elapsed(), seen, sequence)


class LeaseByTheAcknowledgement(ControlLease):
    """Believes an acknowledged write before everything below it was delivered."""

    def until(self) -> float:
        return FOREVER if not self._writes else self._writes[-1].t0 + self.length_s


class AnchorAtTheLastWrite(ControlLease):
    """Reads on behind its last write, whether or not everything below it was delivered."""

    @property
    def anchor(self) -> int:
        return self._writes[-1].sequence if self._writes else 0


class NoFences(Fences):
    """Believes to know every other region for ever."""

    def until(
        self, policy: FencePolicy, others: Sequence[str], lease: ControlLease, grace_s: float
    ) -> float:
        return FOREVER


class EndlessProofs(Proofs):
    """Believes that a key which was used once may be used for ever."""

    def until(self, key: ProofKey, lease: ControlLease) -> float:
        return FOREVER


class Lonely(BootRecords):
    """Knows only the latest boot: everybody else is forgotten at once."""

    def on_record(self, now: float) -> list[Boot]:
        return super().on_record(now)[-1:]


class Deaf(Revocations):
    """Purges, and serves on."""

    def killed(self, tenant: str) -> bool:
        return False


class OneGeneration(Revocations):
    """Purges, and takes an operation for valid that began before."""

    def still(self, tenant: str, generation: int) -> None:
        pass


def _lease(make: Callable[..., ControlLease]) -> Callable[[Instance], None]:
    def apply(instance: Instance) -> None:
        knowledge: Any = instance.knowledge
        knowledge.lease = make(knowledge.timing.control_lease_s, *_clock(make, instance))

    return apply


def _clock(make: Callable[..., ControlLease], instance: Instance) -> tuple[Any, ...]:
    return (instance.clock,) if make is LeaseFromTheAcknowledgement else ()


def _no_fences(instance: Instance) -> None:
    knowledge: Any = instance.knowledge
    knowledge.fences = NoFences()


def _no_proofs(instance: Instance) -> None:
    knowledge: Any = instance.knowledge
    knowledge.proofs = EndlessProofs(knowledge.timing.l1_lease_s)


def _lonely(instance: Instance) -> None:
    record: Any = instance.switch.record
    record.boots = Lonely()


def _never_back(instance: Instance) -> None:
    switch: Any = instance.switch
    switch.went_back = lambda: None
    switch.record._lost = lambda why: None


def _nothing(instance: Instance) -> None:
    """It is applied elsewhere."""


REVOCATIONS: Final[dict[str, type[Revocations]]] = {
    "serves-on": Deaf,
    "one-generation": OneGeneration,
}

VARIANTS: Final[dict[str, Callable[[Instance], None]]] = {
    "accept-late": _nothing,
    "anchor-at-the-last-write": _lease(AnchorAtTheLastWrite),
    "clock-stands-in-suspend": _nothing,
    "endless-lease": _lease(EndlessLease),
    "endless-proofs": _no_proofs,
    "lease-by-the-acknowledgement": _lease(LeaseByTheAcknowledgement),
    "lease-from-the-acknowledgement": _lease(LeaseFromTheAcknowledgement),
    "lonely": _lonely,
    "never-back": _never_back,
    "no-fences": _no_fences,
    "one-generation": _nothing,
    "serves-on": _nothing,
}
"""What is broken, by name."""
