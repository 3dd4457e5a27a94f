"""How well the memory of this process protects its keys, for logs and monitoring."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from kcm_keymem.libc import dumpable
from kcm_keymem.page_source import SYSTEM, PageSource

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SecureMemory:
    """``full``, or ``degraded`` with the reason ``why``. Neither has anything of a key."""

    why: str = ""

    @property
    def full(self) -> bool:
        """Whether every arena has secret pages, and no core dump can be written."""
        return not self.why

    def __str__(self) -> str:
        return "full" if self.full else f"degraded ({self.why})"


def secure_memory(source: PageSource = SYSTEM) -> SecureMemory:
    """Return the state over all pages so far; once degraded, these stay so."""
    dumps = ("core dumps are enabled",) if dumpable() else ()
    return SecureMemory("; ".join((*source.lacks, *dumps)))


def as_metadata() -> dict[str, str]:
    """Return the state as an entry of a service's metadata."""
    return {"secure_memory": str(secure_memory())}


def log_secure_memory() -> None:
    """Log the state, as a warning if it is degraded. Once, at the start of a process."""
    state = secure_memory()
    log.log(logging.INFO if state.full else logging.WARNING, "secure memory: %s", state)
