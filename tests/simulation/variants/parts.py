"""The parts of an instance that only a Core has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulation.instance import Instance


def core_part(instance: Instance, name: str) -> Any:
    """A part of a Core; ``None`` for a Gateway. Raises ``AttributeError`` if no Core has it."""
    return getattr(instance, name) if instance.who.role == "core" else None
