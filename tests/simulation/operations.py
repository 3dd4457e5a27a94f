"""Operations with tenants' keys at instances: none has an output after a purge (invariant 3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

Operation = tuple[str, bytes, int]
"""Instance, incarnation, and a number."""


class Operations:
    """The operations that are under way, and which of them a purge overtook."""

    def __init__(self, note: Callable[[str], None], broken: Callable[[int, str], None]) -> None:
        self.note: Final = note
        self._broken: Final = broken
        self._running: dict[Operation, str] = {}
        self._overtaken: set[Operation] = set()

    def began(self, operation: Operation, tenant: str) -> None:
        """An operation begins at an instance: an unseal, or a use of a key."""
        self._running[operation] = tenant

    def ended(self, operation: Operation) -> None:
        """It ended without an output."""
        self._running.pop(operation, None)
        self._overtaken.discard(operation)

    def output(self, operation: Operation) -> None:
        """It yields an output: invariant 3."""
        tenant = self._running.pop(operation)
        if operation in self._overtaken:
            self._broken(3, f"{operation[0]} has an output for {tenant} that began before a purge")

    def purged(self, instance: str, incarnation: bytes, tenant: str) -> int:
        """An instance purges a tenant; returns how many operations that overtakes."""
        reached = [
            operation
            for operation, owner in self._running.items()
            if owner == tenant and operation[:2] == (instance, incarnation)
        ]
        self._overtaken.update(reached)
        self.note(f"{instance} purges {tenant} ({len(reached)} under way)")
        return len(reached)
