"""The memory in which ciphers work: a small port, which ``kcm_keymem.arena`` implements."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol


class SecretMemory(Protocol):
    """Locked memory of one owner, at least one page."""

    def use(self, size: int | None = None) -> AbstractContextManager[memoryview]:
        """Lend the first ``size`` bytes; raises on entry and on leaving after a purge."""
        ...

    def purge(self) -> None:
        """Overwrite it at once."""
        ...


class KeyColumn(Protocol):
    """Consecutive keys: ``view`` covers all of them, ``each`` has a view of each."""

    @property
    def view(self) -> memoryview:
        """All keys in sequence."""
        ...

    @property
    def each(self) -> Sequence[memoryview]:
        """A view of each key."""
        ...

    def __len__(self) -> int: ...


def wipe(view: memoryview) -> None:
    """Overwrite writable memory with zeros."""
    view[:] = bytes(len(view))
