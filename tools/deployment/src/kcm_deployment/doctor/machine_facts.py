"""What this machine says about itself; reading changes nothing."""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kcm_deployment.doctor.checks.memory import page_lacks

_CLOCK_ERROR: Final = 5
"""What ``adjtimex`` returns for a clock that is not synchronised (``TIME_ERROR``)."""

_TIMEX_BYTES: Final = 256
"""More than the 208 bytes of the kernel's ``struct timex``. Zeros only read the clock's state."""

Read = Callable[[str], str | None]
"""Returns the text of a file of the kernel, or ``None`` if it cannot be read."""


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """Texts are those of the kernel's files; ``None`` stands for one that cannot be read."""

    memlock: int
    """Bytes that this process may lock; -1 for no limit."""
    swaps: str | None
    core_pattern: str | None
    limits: str | None
    """The limits of the process that started this one, which sets its own core limit to 0."""
    ptrace_scope: str | None
    security_modules: str | None
    page_lacks: tuple[str, ...] | None
    clock_in_step: bool | None


def read_text(path: str) -> str | None:
    """Read a file of the kernel; implements ``Read``."""
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return None


def read_machine(
    read: Read = read_text,
    lacks: Callable[[], tuple[str, ...]] = page_lacks,
    in_step: Callable[[], bool | None] | None = None,
) -> MachineFacts:
    """Return the facts; the arguments are for tests."""
    return MachineFacts(
        memlock=resource.getrlimit(resource.RLIMIT_MEMLOCK)[0],
        swaps=read("/proc/swaps"),
        core_pattern=read("/proc/sys/kernel/core_pattern"),
        limits=read(f"/proc/{os.getppid()}/limits"),
        ptrace_scope=read("/proc/sys/kernel/yama/ptrace_scope"),
        security_modules=read("/sys/kernel/security/lsm"),
        page_lacks=_lacks(lacks),
        clock_in_step=(in_step or clock_in_step)(),
    )


def clock_in_step() -> bool | None:
    """Return whether the kernel knows its clock to be synchronised; ``None`` if it does not say."""
    libc = ctypes.CDLL(None, use_errno=True)
    state = int(libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)))
    return None if state < 0 else state != _CLOCK_ERROR


def _lacks(lacks: Callable[[], tuple[str, ...]]) -> tuple[str, ...] | None:
    try:
        return lacks()
    except (MemoryError, OSError):
        return None
