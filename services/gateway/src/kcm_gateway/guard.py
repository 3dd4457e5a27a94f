"""What the engine asks before and after: is the tenant alive, in the same generation still."""

from __future__ import annotations

from typing import Final, Protocol

from kcm_control.registry import Registry
from kcm_control.revocation import Revocations
from kcm_schemas.codes import Code, KcmError


class Guard(Protocol):
    """The kill switch as the engine sees it."""

    def begin(self, tenant: str) -> int:
        """The tenant's generation; raises ``tenant_killed`` or ``unknown_tenant``."""
        ...

    def still(self, tenant: str, generation: int) -> None:
        """Raises ``tenant_killed`` unless the generation is the same."""
        ...


class Members:
    """A ``Guard`` for the tenants that operators registered for this region.

    A hold on a link reaches the tenants that are known to be on it. So one that is not known is not
    served: a Gateway from which somebody keeps a tenant's record would not notice its kill.
    """

    def __init__(self, revocations: Revocations, registry: Registry, region: str) -> None:
        self._revocations: Final = revocations
        self._registry: Final = registry
        self._region: Final = region

    def begin(self, tenant: str) -> int:
        """The tenant's generation; raises ``tenant_killed`` or ``unknown_tenant``."""
        record = self._registry.tenant(tenant)
        if record is None or self._region not in record.regions:
            raise KcmError(Code.UNKNOWN_TENANT)
        return self._revocations.begin(tenant)

    def still(self, tenant: str, generation: int) -> None:
        """Raises ``tenant_killed`` unless the generation is the same."""
        self._revocations.still(tenant, generation)
