"""The port through which the loader reports each use of a customer's root key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from kcm_killswitch.model.key_leases import Target
from kcm_killswitch.model.log_position import LogPosition
from kcm_schemas.l1 import L1State
from kcm_schemas.registry import WrappedRoot


@dataclass(frozen=True, slots=True)
class Ask:
    """A use of a root key: which key, and the log position and time from before the call."""

    target: Target
    position: LogPosition | None
    began: float


class KeyObserver(Protocol):
    """Receives a call before and after every use of a root key."""

    def ask(self, tenant: str, root: WrappedRoot) -> Ask:
        """A tenant root is about to be unsealed, which is a use of the key."""
        ...

    def answered(self, ask: Ask, state: L1State, principal: str = "") -> None:
        """Act on the result of a call to a key. Does not wait."""
        ...

    def opened(self, tenant: str, ask: Ask, principal: str) -> None:
        """A tenant root was opened by that key: the tenant's key lease begins."""
        ...
