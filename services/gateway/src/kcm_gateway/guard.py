"""What the engine asks before and after: may the tenant be served, in the same generation still."""

from __future__ import annotations

from typing import Final, Protocol

from kcm_killswitch.model.admission import Permit, Serving
from kcm_runtime.clock import Clock
from kcm_schemas.codes import KcmError


class Guard(Protocol):
    """The kill switch as the engine sees it."""

    def begin(self, tenant: str) -> Permit:
        """Let an operation begin; raises ``tenant_killed``, ``unknown_tenant``, ``unavailable``."""
        ...

    def still(self, permit: Permit) -> float:
        """Let an output go: the seconds for which it may be accepted; raises as ``begin`` does."""
        ...

    def refusal(self, tenant: str) -> KcmError:
        """Why nothing is output whose keys were purged meanwhile."""
        ...


class Members:
    """A ``Guard`` by what this incarnation knows, on its clock."""

    def __init__(self, serving: Serving, clock: Clock) -> None:
        self._serving: Final = serving
        self._clock: Final = clock

    def begin(self, tenant: str) -> Permit:
        """Let an operation begin."""
        return self._serving.begin(tenant, self._clock.elapsed())

    def still(self, permit: Permit) -> float:
        """Let an output go."""
        return self._serving.still(permit, self._clock.elapsed())

    def refusal(self, tenant: str) -> KcmError:
        """Why nothing is output whose keys were purged meanwhile."""
        return self._serving.refusal(tenant)
