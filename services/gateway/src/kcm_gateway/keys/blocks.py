"""Blocks of data keys in locked memory, shared by their holders, wiped by the last one.

Blocks are in **slabs**, and a slab has blocks of one tenant only. So a purge overwrites a few large
pieces of memory, even while they are in use, and leaving a use after that raises ``Purged``. A
tenant with little load has slabs of one block; each further slab doubles the number of places, up
to ``SLAB_BYTES``.

Returning memory to the system takes several times as long as overwriting it and protects nothing
more. So a purge leaves it to ``reap``.
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
"""Bytes of the largest slab: large enough that a purge overwrites few of them, small enough that
unmapping one takes a fraction of a millisecond."""

TENANT_BYTES_MAX: Final = 32 * 1024 * 1024
"""The most bytes of locked memory for one tenant, a million keys: overwriting them takes a few
milliseconds, for which a kill waits."""


class _Slab:
    """Locked memory in places of one size, all of one tenant."""

    __slots__ = ("arena", "cut", "free", "live", "size")

    def __init__(self, arena: Arena, size: int) -> None:
        self.arena: Final = arena
        self.size: Final = size
        self.free = list(range(0, arena.size, size))
        self.live = 0
        self.cut: dict[int, Keys] = {}
        """The views of each place that was used, sliced once."""


class KeyBlock:
    """``count`` keys of 32 bytes each, made and released by ``Blocks``."""

    __slots__ = ("_at", "_slab", "_users", "count", "holders", "tenant")

    def __init__(self, tenant: str, slab: _Slab, at: int, count: int) -> None:
        """``at`` is the offset in the slab, in bytes."""
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
        """End a use that began with ``enter``."""
        self._users -= 1
        self._slab.arena.leave()

    def check(self) -> None:
        """Raise ``Purged`` after a purge."""
        self._slab.arena.check()

    def keys(self, start: int = 0, count: int | None = None) -> Keys:
        """Return ``count`` keys from ``start`` on, or all; the caller has entered the block."""
        cut = self._slab.cut.get(self._at)
        if cut is None:
            with self._slab.arena.use() as view:
                cut = Keys.of(view[self._at : self._at + self._slab.size])
            self._slab.cut[self._at] = cut
        return cut.part(start, self.count - start if count is None else count)

    @property
    def purged(self) -> bool:
        """Whether the keys were purged."""
        return self._slab.arena.purged

    def vacate(self) -> _Slab:
        """Wipe the keys and free their place; returns the slab.

        A place that is still in use is not reused while the slab exists.
        """
        slab = self._slab
        with slab.arena.use() as view:
            wipe(view[self._at : self._at + slab.size])
        slab.live -= 1
        if not self._users:
            slab.free.append(self._at)
        return slab


class _Use:
    """A use from ``enter`` to ``leave``. A class, because a generator costs three times as much."""

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
    """The slabs of one tenant, and those with free places, by size of their places."""

    __slots__ = ("keys", "room", "size", "slabs")

    def __init__(self) -> None:
        self.slabs: dict[_Slab, None] = {}
        self.room: dict[int, dict[_Slab, None]] = {}
        self.keys = 0
        self.size = 0


class Blocks:
    """All blocks of all tenants."""

    def __init__(self, memory: ScratchPool | None = None) -> None:
        """``memory`` lends the locked memory of the slabs."""
        self._pool: Final = memory if memory is not None else ScratchPool()
        self._tenants: dict[str, _Tenant] = {}
        self._gone: list[_Slab] = []
        """Slabs that were purged and are still mapped."""

    @property
    def tenants(self) -> list[str]:
        """The tenants that have keys."""
        return list(self._tenants)

    def make(self, tenant: str, count: int) -> KeyBlock:
        """Make a block of zeros with one holder; raises ``busy`` at the tenant's bound."""
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
        """Add a holder."""
        block.holders += 1
        return block

    def release(self, block: KeyBlock) -> None:
        """Remove a holder; the last one wipes the keys."""
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
        """Wipe all keys of a tenant; returns their number.

        Every key is overwritten when this returns. ``reap`` returns the memory.
        """
        known = self._tenants.pop(tenant, None)
        if known is None:
            return 0
        for slab in known.slabs:
            slab.arena.purge(unmap=False)
        self._gone += known.slabs
        return known.keys

    def reap(self, slabs: int) -> bool:
        """Unmap at most ``slabs`` purged slabs; returns whether some are left."""
        for slab in self._gone[-slabs:]:
            slab.cut.clear()
            slab.arena.purge()
        del self._gone[-slabs:]
        return bool(self._gone)

    def _more(self, known: _Tenant, size: int) -> _Slab:
        """Make a slab with as many places of a size as there are, so that slabs stay few."""
        places = sum(slab.arena.size // size for slab in known.slabs if slab.size == size)
        wanted = size * max(1, min(places, SLAB_BYTES // size))
        if known.size + wanted > TENANT_BYTES_MAX:
            raise KcmError(
                Code.BUSY,
                f"the tenant's keys take {known.size} bytes, of {TENANT_BYTES_MAX} that one tenant"
                " may take",
            )
        slab = _Slab(self._pool.take(wanted), size)
        known.slabs[slab] = None
        known.size += slab.arena.size
        return slab


def _place_size(count: int) -> int:
    """Return the bytes of a place for ``count`` keys: a power of two of whole pages."""
    pages = -(-count * KEY_SIZE // PAGE)
    return PAGE << (pages - 1).bit_length()
