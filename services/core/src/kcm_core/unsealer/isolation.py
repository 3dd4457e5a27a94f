"""How well the unsealer is separated from its Core, for logs and monitoring."""

from __future__ import annotations

import logging
from dataclasses import dataclass

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Isolation:
    """``full`` if the unsealer has a user of its own, or ``degraded`` with the reason ``why``."""

    why: str = ""

    @property
    def full(self) -> bool:
        """Whether the unsealer has neither the Core's files nor its rights."""
        return not self.why

    def __str__(self) -> str:
        return "full" if self.full else f"degraded ({self.why})"

    def as_metadata(self) -> dict[str, str]:
        """Return the state as an entry of a service's metadata."""
        return {"unsealer_isolation": str(self)}

    def log(self) -> None:
        """Log the state, as a warning if it is degraded. Once, at the start of a process."""
        level = logging.INFO if self.full else logging.WARNING
        log.log(level, "unsealer isolation: %s", self)
