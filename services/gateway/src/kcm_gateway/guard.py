"""What the engine asks before and after: is the tenant alive, in the same generation still."""

from __future__ import annotations

from typing import Protocol


class Guard(Protocol):
    """The kill switch as the engine sees it; ``kcm_control.revocation.Revocations`` is one."""

    def begin(self, tenant: str) -> int:
        """The tenant's generation; raises ``tenant_killed``."""
        ...

    def still(self, tenant: str, generation: int) -> None:
        """Raises ``tenant_killed`` unless the generation is the same."""
        ...
