"""Blocks of data keys in locked memory, shared by whoever works with them, wiped by the last.

Blocks lie in **slabs**, and a slab has blocks of one tenant only. So a purge overwrites a few large
pieces of memory, under everybody's hands, and leaving a use after that raises ``Purged``. A tenant
with little to do has slabs of one block; each further slab has as many places as there are, up to
``SLAB_BYTES``.

Giving memory back to the system costs several times what overwriting it does, and tells nobody
anything. So a purge leaves it for ``reap``.
"""

from __future__ import annotations

from types import TracebackType
from typing import Final

from kcm_keymem.arena import Arena, Keys, ScratchPool
from kcm_keymem.pages import PAGE
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.limits import KEY_SIZE
from kcm_sealing.memory import wipe

SLAB_BYTES: Final = 256 * 1024
"""Bytes of the largest slab of many blocks: large enough that a purge has few of them to go
through, small enough that unmapping one takes a fraction of a millisecond."""

TENANT_BYTES_MAX: Final = 32 * 1024 * 1024
"""Bytes of locked memory that one tenant's keys take at most, a million keys: overwriting that
much takes a few milliseconds, and a kill waits for it."""


class _Slab:
    """Locked memory in places of one size, all of one tenant."""

    __slots__ = ("arena", "cut", "free", "live", "size")

    def __init__(self, arena: Arena, size: int) -> None:
        self.arena: Final = arena
        self.size: Final = size
        self.free = list(range(0, arena.size, size))
        self.live = 0
        self.cut: dict[int, Keys] = {}
        """The views of each place that was used, cut once."""


class KeyBlock:
    """``count`` keys of 32 bytes each, made and released by ``Blocks``."""

    __slots__ = ("_at", "_slab", "_users", "count", "holders", "tenant")

    def __init__(self, tenant: str, slab: _Slab, at: int, count: int) -> None:
        """``at`` is the place in the slab, in bytes."""
        self.tenant: Final = tenant
        self.count: Final = count
        self.holders = 1
        self._slab: Final = slab
        self._at: Final = at
        self._users = 0

    def use(self, start: int = 0, count: int | None = None) -> _Use:
        """Lend ``count`` keys from ``start`` on, or all; raises ``Purged``, on leaving too."""
        return _Use(self, start, self.count - start if count is None else count)

    def enter(self) -> None:
        """Begin a use that ``leave`` ends; prefer ``use``. Raises ``Purged``."""
        self._slab.arena.enter()
        self._users += 1

    def leave(self) -> None:
        """End a use begun with ``enter``."""
        self._users -= 1
        self._slab.arena.leave()

    def check(self) -> None:
        """Raise ``Purged`` when the keys are gone."""
        self._slab.arena.check()

    def keys(self, start: int = 0, count: int | None = None) -> Keys:
        """``count`` keys from ``start`` on, or all, for whoever has entered."""
        cut = self._slab.cut.get(self._at)
        if cut is None:
            with self._slab.arena.use() as view:
                cut = Keys.of(view[self._at : self._at + self._slab.size])
            self._slab.cut[self._at] = cut
        return cut.part(start, self.count - start if count is None else count)

    @property
    def purged(self) -> bool:
        """Whether the keys are gone."""
        return self._slab.arena.purged

    def vacate(self) -> _Slab:
        """Wipe the keys and give the place back; the slab that it is in.

        A place that somebody still uses is not given to anybody else while the slab lives.
        """
        slab = self._slab
        with slab.arena.use() as view:
            wipe(view[self._at : self._at + slab.size])
        slab.live -= 1
        if not self._users:
            slab.free.append(self._at)
        return slab


class _Use:
    """A use from ``enter`` to ``leave``. A class, for a generator costs three times as much."""

    __slots__ = ("_block", "_count", "_start")

    def __init__(self, block: KeyBlock, start: int, count: int) -> None:
        self._block: Final = block
        self._start: Final = start
        self._count: Final = count

    def __enter__(self) -> Keys:
        self._block.enter()
        return self._block.keys(self._start, self._count)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._block.leave()
        if kind is None or issubclass(kind, Exception):
            self._block.check()


class _Tenant:
    """The slabs of one tenant, and by size of their places those with room."""

    __slots__ = ("keys", "room", "size", "slabs")

    def __init__(self) -> None:
        self.slabs: dict[_Slab, None] = {}
        self.room: dict[int, dict[_Slab, None]] = {}
        self.keys = 0
        self.size = 0


class Blocks:
    """Every block of every tenant."""

    def __init__(self) -> None:
        self._pool: Final = ScratchPool()
        self._tenants: dict[str, _Tenant] = {}
        self._gone: list[_Slab] = []
        """Slabs that were purged, and are mapped still."""

    @property
    def tenants(self) -> list[str]:
        """Whose keys there are."""
        return list(self._tenants)

    def make(self, tenant: str, count: int) -> KeyBlock:
        """A block of zeros with one holder; raises ``busy`` when the tenant holds too much."""
        known = self._tenants.get(tenant) or _Tenant()
        size = _place_size(count)
        room = known.room.setdefault(size, {})
        slab = next(reversed(room), None) or self._more(known, size)
        self._tenants[tenant] = known
        known.keys += count
        slab.live += 1
        at = slab.free.pop()
        if slab.free:
            room[slab] = None
        else:
            room.pop(slab, None)
        return KeyBlock(tenant, slab, at, count)

    def hold(self, block: KeyBlock) -> KeyBlock:
        """One more holder."""
        block.holders += 1
        return block

    def release(self, block: KeyBlock) -> None:
        """One holder less; the last one wipes the keys."""
        block.holders -= 1
        if block.holders or block.purged:
            return
        known, slab = self._tenants[block.tenant], block.vacate()
        known.keys -= block.count
        if slab.live:
            if slab.free:
                known.room[slab.size][slab] = None
            return
        known.room[slab.size].pop(slab, None)
        known.size -= slab.arena.size
        del known.slabs[slab]
        if not known.slabs:
            del self._tenants[block.tenant]
        self._pool.give_back(slab.arena)

    def purge(self, tenant: str) -> int:
        """Wipe everything of a tenant; returns how many keys there were.

        Every key is overwritten when this returns. Their memory is given back by ``reap``.
        """
        known = self._tenants.pop(tenant, None)
        if known is None:
            return 0
        for slab in known.slabs:
            slab.arena.purge(unmap=False)
        self._gone += known.slabs
        return known.keys

    def reap(self, slabs: int) -> bool:
        """Give back the memory of at most so many purged slabs; whether some are left."""
        for slab in self._gone[-slabs:]:
            slab.cut.clear()
            slab.arena.purge()
        del self._gone[-slabs:]
        return bool(self._gone)

    def _more(self, known: _Tenant, size: int) -> _Slab:
        """Another slab for places of a size: as many as there are, so that slabs stay few."""
        places = sum(slab.arena.size // size for slab in known.slabs if slab.size == size)
        wanted = size * max(1, min(places, SLAB_BYTES // size))
        if known.size + wanted > TENANT_BYTES_MAX:
            raise KcmError(Code.BUSY, "the tenant's keys take as much memory as one tenant may")
        slab = _Slab(self._pool.take(wanted), size)
        known.slabs[slab] = None
        known.size += slab.arena.size
        return slab


def _place_size(count: int) -> int:
    """Bytes of a place for so many keys: whole pages, a power of two of them."""
    pages = -(-count * KEY_SIZE // PAGE)
    return PAGE << (pages - 1).bit_length()
