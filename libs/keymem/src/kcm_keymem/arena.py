"""Arenas: the only place that holds a key.

An arena serves one generation of one owner (a tenant's keys, one batch). ``purge`` overwrites it at
once, even while it is in use. Unmapping waits for the last user: an address that is mapped again
too early would show one tenant's view another tenant's key. Every use is bracketed:

    with arena.use() as keys:
        ...            # cipher calls on slices of ``keys``
    # reached only when no purge came in between

Leaving the bracket after a purge raises ``Purged``, so that output that raced a purge is never
returned. A forked child that inherits an arena cannot use it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, NoReturn, Self

from kcm_schemas.limits import KEY_SIZE

from kcm_keymem.page_source import SYSTEM, PageSource
from kcm_keymem.pages import PAGE, Pages


@dataclass(frozen=True, slots=True)
class Keys:
    """Consecutive keys in locked memory: ``view`` covers all of them, ``each`` has a view of each.

    Slicing a view costs about a fifth of a cipher call on it. So an arena slices its views once and
    uses them for every batch to which it is lent.
    """

    view: memoryview
    each: Sequence[memoryview]

    @classmethod
    def of(cls, view: memoryview) -> Self:
        """Slice the views of all keys; raises ``ValueError`` unless they are 32 bytes each."""
        if len(view) % KEY_SIZE:
            raise ValueError("a key has 32 bytes")
        return cls(view, tuple(view[at : at + KEY_SIZE] for at in range(0, len(view), KEY_SIZE)))

    def __len__(self) -> int:
        return len(self.each)

    def part(self, start: int, count: int) -> Keys:
        """Return ``count`` keys from the ``start``-th on."""
        end = start + count
        return Keys(self.view[start * KEY_SIZE : end * KEY_SIZE], self.each[start:end])


class Purged(Exception):
    """The keys were purged before the operation ended, so it has no output."""


class Arena:
    """Locked memory for the keys of one owner; ``size`` in bytes, rounded up to pages."""

    __slots__ = ("_keys", "_lock", "_pages", "_pid", "_purged", "_unmapped", "_users", "_view")

    def __init__(self, size: int = PAGE, source: PageSource = SYSTEM) -> None:
        self._unmapped = True  # until there is something to unmap
        self._pages: Final[Pages] = source.map(size)
        self._view: Final = memoryview(self._pages.buffer()).cast("B")
        self._lock: Final = threading.Lock()
        self._pid: Final = os.getpid()
        self._keys: Keys | None = None
        self._users = 0
        self._purged = False
        self._unmapped = False

    @property
    def size(self) -> int:
        """Usable bytes."""
        return self._pages.size

    @property
    def purged(self) -> bool:
        """Whether the keys were overwritten for good."""
        return self._purged

    @property
    def mapped(self) -> bool:
        """Whether the memory was not returned to the system yet."""
        return not self._unmapped

    def use(self, size: int | None = None) -> AbstractContextManager[memoryview]:
        """Lend the first ``size`` bytes; raises ``Purged`` on entry and again on leaving.

        An exception inside the bracket after a purge was caused by the wiped keys. It becomes
        ``Purged``, so that the caller cannot report it as a tampered record.
        """
        return _Use(self, size)

    def use_keys(self, count: int, start: int = 0) -> AbstractContextManager[Keys]:
        """Lend room for ``count`` keys from the ``start``-th on; raises as ``use`` does."""
        return _KeysUse(self, count, start=start)

    def enter(self) -> memoryview:
        """Begin a use that ``leave`` ends; raises ``Purged``. Prefer ``use``."""
        if os.getpid() != self._pid:
            raise Purged("keys do not cross a fork")
        with self._lock:
            if self._purged:
                raise Purged
            self._users += 1
        return self._view

    def keys(self, count: int, start: int = 0) -> Keys:
        """Return ``count`` keys from the ``start``-th on; the caller has entered the arena."""
        if self._keys is None:
            self._keys = Keys.of(self._view)
        return self._keys.part(start, count)

    def leave(self) -> None:
        """End a use that began with ``enter``.

        The operation may have written keys after a purge wiped them. Other users may keep the
        memory for long, so it is wiped here, and the last user unmaps it.
        """
        with self._lock:
            self._users -= 1
            if self._purged and not self._unmapped:
                self._pages.wipe()
            self._unmap_when_unused()

    def check(self) -> None:
        """Raise ``Purged`` after a purge: call it before any output."""
        if self._purged:
            raise Purged

    def purge(self, *, unmap: bool = True) -> None:
        """Overwrite every key now, and unmap when the last user has left. Idempotent.

        Unmapping takes several times as long: a caller in a hurry leaves it to a later purge.
        """
        if os.getpid() != self._pid:
            return
        with self._lock:
            if not self._unmapped:
                self._purged = True
                self._pages.wipe()
                if unmap:
                    self._unmap_when_unused()

    def wipe_unused(self) -> bool:
        """Overwrite everything for the next user; returns ``False`` while the arena is in use."""
        with self._lock:
            if self._users or self._purged:
                return False
            self._pages.wipe()
            return True

    def _unmap_when_unused(self) -> None:
        if self._purged and not self._users and not self._unmapped:
            self._unmapped = True
            self._pages.wipe()
            self._pages.unmap()

    def __del__(self) -> None:
        # Reached only through a bug or at exit. A view that was never given back keeps its pages
        # mapped, so that it cannot show another owner's keys.
        if not self._unmapped and os.getpid() == self._pid:
            self._purged = True
            self._pages.wipe()
            self._unmap_when_unused()

    def __repr__(self) -> str:
        return f"<Arena {self.size} bytes{', purged' if self._purged else ''}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("keys are not pickled")

    def __bytes__(self) -> NoReturn:
        raise TypeError("keys do not become bytes")


class _Bracket:
    """A use from ``enter`` to ``leave``. A class, because a generator costs three times as much."""

    __slots__ = ("_arena", "_count", "_pool", "_start")

    def __init__(
        self, arena: Arena, count: int | None, pool: ScratchPool | None = None, start: int = 0
    ) -> None:
        self._arena: Final = arena
        self._count: Final = count
        self._start: Final = start
        self._pool: Final = pool

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._arena.leave()
            if kind is None or issubclass(kind, Exception):
                self._arena.check()
        finally:
            if self._pool is not None:
                self._pool.give_back(self._arena)


class _Use(_Bracket):
    """A use of a number of bytes."""

    __slots__ = ()

    def __enter__(self) -> memoryview:
        return self._arena.enter()[: self._count]


class _KeysUse(_Bracket):
    """A use of a number of keys."""

    __slots__ = ()

    def __enter__(self) -> Keys:
        self._arena.enter()
        return self._arena.keys(self._count or 0, self._start)


class ScratchPool:
    """Arenas that are lent for one batch and return wiped, so that few are ever mapped."""

    KEEP: Final = 16
    """Idle arenas that are kept for each size; more are unmapped on return."""

    def __init__(self) -> None:
        self._idle: dict[int, list[Arena]] = {}

    @property
    def idle(self) -> int:
        """How many arenas are mapped and wait to be lent."""
        return sum(map(len, self._idle.values()))

    def borrow(self, size: int) -> AbstractContextManager[memoryview]:
        """Lend ``size`` bytes of zeros, which are wiped again on return."""
        return _Use(self.take(size), size, self)

    def borrow_keys(self, count: int) -> AbstractContextManager[Keys]:
        """Lend room for ``count`` keys, all zeros, which are wiped again on return."""
        return _KeysUse(self.take(count * KEY_SIZE), count, self)

    def take(self, size: int) -> Arena:
        """Return an arena of zeros with at least ``size`` bytes, for one batch."""
        pages = -(-size // PAGE)
        rounded = PAGE << (pages - 1).bit_length()
        idle = self._idle.setdefault(rounded, [])
        return idle.pop() if idle else Arena(rounded)

    def give_back(self, arena: Arena) -> None:
        """Wipe and keep an arena that is not in use; a purged one is dropped."""
        if arena.purged:
            return
        idle = self._idle.setdefault(arena.size, [])
        if len(idle) < self.KEEP and arena.wipe_unused():
            idle.append(arena)
        else:
            arena.purge()
