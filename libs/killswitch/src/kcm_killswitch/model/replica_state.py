"""The state of one replica of the kill switch: the objects that decide what may be served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from kcm_killswitch.model.admission import Admission
from kcm_killswitch.model.freshness import Freshness
from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.revocations import Revocations
from kcm_killswitch.model.timing import Timing


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """Who exists (registry), who is killed (revocations), how fresh both are, who is admitted."""

    registry: Registry
    revocations: Revocations
    freshness: Freshness
    admission: Admission

    @classmethod
    def empty(cls, region: str, timing: Timing, *, told: bool = False, own_key: str = "") -> Self:
        """Make the state of an instance that knows nothing yet, so that it admits nothing.

        ``told``: it knows the registry only from statements of its region's Cores, as a Gateway
        does. ``own_key`` names the instance and its key, for a hold on it (``key_target``).
        """
        registry = Registry()
        revocations = Revocations(registry, region, own_key)
        freshness = Freshness(timing)
        admission = Admission(freshness, revocations, registry, region, told=told)
        return cls(registry, revocations, freshness, admission)
