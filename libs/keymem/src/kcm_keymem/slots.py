"""Slots: locked memory for many small secrets, packed into few pages.

A session needs less than 200 bytes, and an arena has at least a page and two guards. With a page
each, 10,000 sessions would exceed the memory that a process may usually lock. A slot is used like
an arena: ``purge`` overwrites it at once, even while it is in use, and a use that raced a purge
raises ``Purged``. A purged slot is lent again when its last user has left.
"""

from __future__ import annotations

import os
import threading
from typing import Final, NoReturn

from kcm_keymem.arena import Arena, Purged
from kcm_keymem.pages import PAGE, wipe

SLOT_SIZE: Final = 192
"""Bytes of a slot."""

ARENA_SIZE: Final = 16 * PAGE
"""Bytes that are mapped and locked at once."""


class Slots:
    """Lends slots; maps another arena when all are lent."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._arenas: list[Arena] = []
        self._free: list[memoryview] = []
        self._pid: Final = os.getpid()

    @property
    def size(self) -> int:
        """Bytes that are mapped."""
        return sum(arena.size for arena in self._arenas)

    def lend(self) -> Slot:
        """Return a slot of zeros, which is its holder's until it is purged.

        Raises ``Purged`` in a forked child, which does not have the pages.
        """
        if os.getpid() != self._pid:
            raise Purged("keys do not cross a fork")
        with self._lock:
            if not self._free:
                arena = Arena(ARENA_SIZE)
                view = arena.enter()  # for as long as the arena exists
                self._arenas.append(arena)
                last = arena.size - SLOT_SIZE
                self._free = [view[at : at + SLOT_SIZE] for at in range(0, last + 1, SLOT_SIZE)]
            return Slot(self, self._free.pop())

    def take_back(self, view: memoryview) -> None:
        """Lend a wiped slot again."""
        with self._lock:
            self._free.append(view)

    def close(self) -> None:
        """Overwrite all slots. No slot may be in use, or lent afterwards."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._free.clear()
            for arena in self._arenas:
                arena.purge()
                arena.leave()
            self._arenas.clear()


class Slot:
    """The memory of one secret; implements ``kcm_sealing.memory.SecretMemory``."""

    __slots__ = ("_lock", "_of", "_pid", "_purged", "_users", "_view")

    def __init__(self, of: Slots, view: memoryview) -> None:
        self._of: Final = of
        self._view: Final = view
        self._lock: Final = threading.Lock()
        self._pid: Final = os.getpid()
        self._users = 0
        self._purged = False

    def use(self, size: int | None = None) -> _Use:
        """Lend the first ``size`` bytes; raises ``Purged`` on entry and again on leaving."""
        return _Use(self, size)

    def enter(self) -> memoryview:
        """Begin a use that ``leave`` ends; raises ``Purged``. Prefer ``use``."""
        if os.getpid() != self._pid:
            raise Purged("keys do not cross a fork")
        with self._lock:
            if self._purged:
                raise Purged
            self._users += 1
        return self._view

    def leave(self) -> None:
        """End a use; the last one of a purged slot gives it back."""
        with self._lock:
            self._users -= 1
            if self._purged:
                wipe(self._view)
                if not self._users:
                    self._of.take_back(self._view)

    def check(self) -> None:
        """Raise ``Purged`` after a purge."""
        if self._purged:
            raise Purged

    def purge(self) -> None:
        """Overwrite the secret now. Idempotent."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            if not self._purged:
                self._purged = True
                wipe(self._view)
                if not self._users:
                    self._of.take_back(self._view)

    def __reduce__(self) -> NoReturn:
        raise TypeError("keys are not pickled")


class _Use:
    __slots__ = ("_size", "_slot")

    def __init__(self, slot: Slot, size: int | None) -> None:
        self._slot: Final = slot
        self._size: Final = size

    def __enter__(self) -> memoryview:
        return self._slot.enter()[: self._size]

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._slot.leave()
        if kind is None or issubclass(kind, Exception):
            self._slot.check()
