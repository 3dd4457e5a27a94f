"""The memory in which ciphers work: a small port, which ``kcm_keymem.arena`` implements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol


class SecretMemory(Protocol):
    """Memory of one owner, at least ``session.MEMORY_SIZE`` bytes."""

    def use(self, size: int | None = None) -> AbstractContextManager[memoryview]:
        """Lend the first ``size`` bytes; raises on entry and on leaving after a purge."""
        ...

    def purge(self) -> None:
        """Overwrite it at once."""
        ...


Lend = Callable[[], SecretMemory]
"""Makes memory for the keys of one session, or for one secret of an HPKE key."""


class SecretRandomness(Protocol):
    """Random bytes: nonces and identifiers, and secrets straight into the memory for them."""

    def public(self, size: int) -> bytes:
        """Return random bytes that are not secret."""
        ...

    def fill(self, view: memoryview) -> None:
        """Fill memory with a secret."""
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
