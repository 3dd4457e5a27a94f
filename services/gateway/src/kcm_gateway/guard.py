"""What the engine asks before and after: may the tenant be served, in the same generation still."""

from __future__ import annotations

from typing import Final, Protocol

from kcm_killswitch.model.admission import Admission, Permit
from kcm_runtime.clock import Clock
from kcm_schemas.codes import KcmError


class Guard(Protocol):
    """The kill switch as the engine sees it."""

    def admit(self, tenant: str) -> Permit:
        """Let an operation begin; raises ``tenant_killed``, ``unknown_tenant``, ``unavailable``."""
        ...

    def recheck(self, permit: Permit) -> float:
        """Let an output go: the seconds for which it may be accepted; raises as ``begin`` does."""
        ...

    def refusal(self, tenant: str) -> KcmError:
        """Why nothing is output whose keys were purged meanwhile."""
        ...


class Members:
    """A ``Guard`` by what this incarnation knows, on its clock."""

    def __init__(self, admission: Admission, clock: Clock) -> None:
        self._admission: Final = admission
        self._clock: Final = clock

    def admit(self, tenant: str) -> Permit:
        """Let an operation begin."""
        return self._admission.admit(tenant, self._clock.elapsed())

    def recheck(self, permit: Permit) -> float:
        """Let an output go."""
        return self._admission.recheck(permit, self._clock.elapsed())

    def refusal(self, tenant: str) -> KcmError:
        """Why nothing is output whose keys were purged meanwhile."""
        return self._admission.refusal(tenant)
