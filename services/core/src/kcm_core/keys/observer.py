"""The port by which the loader reports each use of a customer's key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from kcm_killswitch.model.key_leases import Target
from kcm_killswitch.model.log_position import LogPosition
from kcm_schemas.l1 import L1State
from kcm_schemas.registry import WrappedRoot


@dataclass(frozen=True, slots=True)
class Ask:
    """A use of a customer's key: which key, and how things stood before it was asked."""

    target: Target
    mark: LogPosition | None
    began: float


class KeyObserver(Protocol):
    """What is told of every use of a customer's key, before and after it."""

    def ask(self, tenant: str, root: WrappedRoot) -> Ask:
        """A tenant's root is about to be unsealed: that uses the key."""
        ...

    def answered(self, ask: Ask, state: L1State, principal: str = "") -> None:
        """Act on what a key answered. Does not wait."""
        ...

    def opened(self, tenant: str, ask: Ask, principal: str) -> None:
        """A tenant's root is open by that key: its lease counts from now on."""
        ...
