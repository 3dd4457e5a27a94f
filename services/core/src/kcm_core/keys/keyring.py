"""A tenant's open keys in this incarnation: one arena of one page, with a name for each slot.

Only the vault's modules hold a keyring. It exists for one generation: a purge wipes it, and the
next load of the tenant creates another one. When the page is full, the least recently used service
key is wiped; it opens again from the tenant root without a call to the customer's root key. A root
is wiped only if there is no service key.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from kcm_keymem.arena import Arena
from kcm_keymem.pages import PAGE
from kcm_schemas.limits import KEY_SIZE
from kcm_sealing.memory import wipe
from kcm_sealing.xaes import SCRATCH_SIZE

_SLOTS_FROM: Final = 256
"""Bytes at the start of the page that are reserved for derivations."""

SLOTS: Final = (PAGE - _SLOTS_FROM) // KEY_SIZE


@dataclass(frozen=True, slots=True)
class RootName:
    """A version of the tenant root."""

    version: int


@dataclass(frozen=True, slots=True)
class ServiceName:
    """A version of a service key."""

    service: str
    version: int


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """Identifies a service key: everything to which its wrap is bound."""

    tenant: str
    service: str
    version: int
    l2_version: int


KeyName = RootName | ServiceName


class Keyring:
    """Keys of one tenant, by name, in locked memory."""

    def __init__(self, generation: int) -> None:
        self.generation: Final = generation
        self._arena: Final = Arena(PAGE)
        self._slots: OrderedDict[KeyName, int] = OrderedDict()
        self._free: Final = list(range(SLOTS))
        self.service_keys: dict[tuple[str, int], ServiceKey] = {}
        """Requests (service and version, 0 for the current one) and the key that answers each."""

    @property
    def purged(self) -> bool:
        """Whether the keys are purged."""
        return self._arena.purged

    def __contains__(self, name: KeyName) -> bool:
        return name in self._slots

    def __len__(self) -> int:
        return len(self._slots)

    def use(self) -> AbstractContextManager[Open]:
        """Lend the keys; raises ``Purged`` on entry, and on exit if a purge came in between."""
        return _Use(self, self._arena.use())

    def slot(self, name: KeyName) -> int:
        """The slot of a key, which becomes the most recently used; raises ``KeyError``."""
        self._slots.move_to_end(name)
        return self._slots[name]

    def take(self, name: KeyName, view: memoryview) -> int:
        """Allocate a slot for a new key; an earlier key of that name is wiped."""
        if name in self._slots:
            self.forget(name, view)
        if not self._free:
            names = (known for known in self._slots if isinstance(known, ServiceName))
            victim = next(names, None) or next(iter(self._slots))
            at = self._slots.pop(victim)
            wipe(_place(view, at))
            self._free.append(at)
        self._slots[name] = self._free.pop()
        return self._slots[name]

    def forget(self, name: KeyName, view: memoryview) -> None:
        """Wipe one key."""
        at = self._slots.pop(name)
        wipe(_place(view, at))
        self._free.append(at)

    def purge(self) -> int:
        """Wipe everything at once; returns the number of keys."""
        count = len(self._slots)
        self._arena.purge()
        self._slots.clear()
        return count


@dataclass(frozen=True, slots=True)
class Open:
    """A keyring in use."""

    _ring: Keyring
    _view: memoryview

    @property
    def scratch(self) -> memoryview:
        """Locked memory for derivations."""
        return self._view[:SCRATCH_SIZE]

    def key(self, name: KeyName) -> memoryview:
        """A key's 32 bytes; raises ``KeyError``."""
        return _place(self._view, self._ring.slot(name))

    def forget(self, name: KeyName) -> None:
        """Wipe one key."""
        self._ring.forget(name, self._view)

    @contextmanager
    def place(self, name: KeyName) -> Iterator[memoryview]:
        """Yield the slot of a new key; it is wiped and released if an error occurs."""
        at = self._ring.take(name, self._view)
        try:
            yield _place(self._view, at)
        except BaseException:
            self._ring.forget(name, self._view)
            raise


class _Use:
    """A use of a keyring. A class, because a generator costs as much as several unwraps."""

    __slots__ = ("_ring", "_use")

    def __init__(self, ring: Keyring, use: AbstractContextManager[memoryview]) -> None:
        self._ring: Final = ring
        self._use: Final = use

    def __enter__(self) -> Open:
        return Open(self._ring, self._use.__enter__())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._use.__exit__(kind, error, trace)


def _place(view: memoryview, at: int) -> memoryview:
    start = _SLOTS_FROM + at * KEY_SIZE
    return view[start : start + KEY_SIZE]
