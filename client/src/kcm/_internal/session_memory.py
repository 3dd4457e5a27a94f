"""The memory of an application's sessions: overwritten when they end.

It is not locked. An application holds its plaintext in ordinary memory anyway, and a session key
opens nothing but what passes between this process and one Gateway.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kcm_sealing.session import MEMORY_SIZE

_RANDOM: Final = Path("/dev/urandom")


class SessionEnded(Exception):
    """The keys of the session were overwritten."""


class SessionMemory:
    """Implements ``kcm_sealing.memory.SecretMemory``, in one thread."""

    def __init__(self) -> None:
        self._view: Final = memoryview(bytearray(MEMORY_SIZE))
        self._ended = False

    @contextmanager
    def use(self, size: int | None = None) -> Iterator[memoryview]:
        """Lend the first ``size`` bytes; raises ``SessionEnded`` after ``purge``."""
        if self._ended:
            raise SessionEnded
        yield self._view[:size]

    def purge(self) -> None:
        """Overwrite the keys."""
        self._ended = True
        self._view[:] = bytes(MEMORY_SIZE)


class SessionRandomness:
    """Implements ``kcm_sealing.memory.SecretRandomness`` with the kernel's generator."""

    def public(self, size: int) -> bytes:
        """Return random bytes that are not secret."""
        return os.urandom(size)

    def fill(self, view: memoryview) -> None:
        """Fill memory with a secret, without a copy."""
        with _RANDOM.open("rb", buffering=0) as source:
            if source.readinto(view) != len(view):
                raise OSError("the kernel returned too few random bytes")
