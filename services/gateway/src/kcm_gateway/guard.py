"""The engine's questions to the kill switch: may it serve, and is the generation unchanged."""

from __future__ import annotations

from typing import Final, Protocol

from kcm_killswitch.model.admission import Admission, Permit
from kcm_runtime.clock import Clock
from kcm_schemas.codes import KcmError


class Guard(Protocol):
    """The kill switch from the engine's point of view."""

    def admit(self, tenant: str) -> Permit:
        """Let an operation begin; raises ``tenant_killed``, ``unknown_tenant``, ``unavailable``."""
        ...

    def recheck(self, permit: Permit) -> float:
        """Return the seconds for which an output may be accepted; raises as ``admit`` does."""
        ...

    def refusal(self, tenant: str) -> KcmError:
        """Return why an operation whose keys were purged has no output."""
        ...


class Members:
    """A ``Guard`` by the admission and the clock of this incarnation."""

    def __init__(self, admission: Admission, clock: Clock) -> None:
        self._admission: Final = admission
        self._clock: Final = clock

    def admit(self, tenant: str) -> Permit:
        """Let an operation begin."""
        return self._admission.admit(tenant, self._clock.elapsed())

    def recheck(self, permit: Permit) -> float:
        """Return the seconds for which an output may be accepted."""
        return self._admission.recheck(permit, self._clock.elapsed())

    def refusal(self, tenant: str) -> KcmError:
        """Return why an operation whose keys were purged has no output."""
        return self._admission.refusal(tenant)
