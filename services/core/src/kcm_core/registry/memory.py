"""Whether this Core remembers its region's registry, and what it remembers.

The memory is the file of floors on the Core's own disk. A Core that finds it at its start knows
below what it must believe nothing. One that does not (a new disk, a new Core, a region that was
restored) cannot tell an old registry from the newest one: it serves nothing, changes nothing in
either store, and says nothing of the registry to others, until it begins to remember. With memory,
what any Core accepts is written down soon.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from kcm_killswitch.model.registry import Key, Registry
from kcm_killswitch.model.registry_lease import NO_MEMORY, RegistryLease
from kcm_runtime.audit.port import Emit
from kcm_runtime.error_text import describe
from kcm_schemas.audit import EventType
from kcm_schemas.codes import Code, KcmError

from kcm_core.registry.floors import Floors

log = logging.getLogger(__name__)

RETRY_S: Final = 1.0
"""Seconds after which what could not be written down is tried again."""


class RegistryMemory:
    """The floors of one Core, and what follows from their being there."""

    def __init__(
        self, *, floors: Floors, registry: Registry, lease: RegistryLease, emit: Emit
    ) -> None:
        self._floors: Final = floors
        self._registry: Final = registry
        self._lease: Final = lease
        self._emit: Final = emit
        self._beginning: Final = asyncio.Lock()
        self._began: Final = asyncio.Event()
        self._learned: set[Key] = set()
        """Keys of which the floor on disk may be too low."""
        self._seen: set[bytes] = set()
        """Digests of what was known since somebody was asked."""
        self._asking = False
        self._stir: Final = asyncio.Event()
        self._moved: Final = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._on_lost: Callable[[], None] = _nobody
        self._unmet: tuple[bytes, bytes] | None = None
        """A registry's digest, and that of the memory then."""
        for key, floor in floors.items():
            registry.floor(key, *floor)
        if floors.fresh:
            lease.without_memory()
        else:
            self._began.set()

    @property
    def has(self) -> bool:
        """Whether this Core remembers."""
        return self._began.is_set()

    def require(self) -> None:
        """Raise ``unavailable`` for a Core without memory."""
        if not self.has:
            raise KcmError(Code.UNAVAILABLE, NO_MEMORY)

    async def wait(self, timeout_s: float) -> None:
        """Wait until this Core remembers, or so long."""
        try:
            await asyncio.wait_for(self._began.wait(), timeout_s)
        except TimeoutError:
            return

    @property
    def digest(self) -> bytes:
        """32 bytes over what is known, and over what is remembered where nothing as high is known.

        Whoever remembers more than both stores have agrees with nobody who has only them.
        """
        known = self._registry.digest
        if self._unmet is None or self._unmet[0] != known:
            self._unmet = known, self._with_unmet(known)
        return self._unmet[1]

    async def begin(
        self, how: EventType, agreed: bytes, *, actor: str | None = None, detail: str = ""
    ) -> None:
        """Remember what is known now, on disk before it is served; nothing where this Core does.

        ``agreed`` is the digest that was agreed on: raises ``conflict`` when this Core knows
        another registry. Raises ``OSError`` when the disk does not take it: then nothing changed.
        """
        async with self._beginning:
            if self.has:
                return
            if agreed != self.digest:
                raise KcmError(Code.CONFLICT, f"this Core knows another registry: {self._hex}")
            floors, said = self._registry.ranks(), self._hex
            await asyncio.to_thread(self._floors.begin, floors)
            self._began.set()
            self._lease.remembered()
            self._stir.set()  # what was learned meanwhile is written down, too
        log.warning("this Core remembers its region's registry from now on (%s)", how.value)
        text = f"{detail}: {said}" if detail else said
        self._emit(how, actor=actor, count=len(floors), detail=text)

    @property
    def unused(self) -> bool:
        """Whether all that this Core remembers is that there was nothing."""
        return self.has and self._floors.unused

    async def use(self) -> None:
        """Remember that a record is accepted; on disk when this returns. Raises ``OSError``."""
        await asyncio.to_thread(self._floors.use)

    def on_lost(self, told: Callable[[], None]) -> None:
        """Be told when this Core has no memory any more."""
        self._on_lost = told

    async def lose(self) -> None:
        """Be without memory: what this Core began with was not all that there is."""
        async with self._beginning:
            if not self.unused:
                return
            self._began.clear()
            self._lease.without_memory()
            log.critical(
                "this Core began where nothing was stored, and the second key store has records "
                "that no Core accepted since: it was not there at the start, or somebody put back "
                "old ones; this Core has no memory of the registry any more"
            )
            try:
                await asyncio.to_thread(self._floors.forget)
            except OSError as error:
                # The same is found out at the next start.
                log.error("the file of floors is not removed: %s", error.strerror)
        self._on_lost()

    def asking(self) -> None:
        """Note what is known from now on: others accept records while somebody answers."""
        self._asking, self._seen = True, {self.digest}

    def asked(self) -> None:
        """Nobody is asked any more."""
        self._asking, self._seen = False, set()

    async def reaches(self, digest: bytes, timeout_s: float) -> bool:
        """Whether this Core knows what somebody said, has known it since it asked, or soon does."""
        try:
            async with asyncio.timeout(timeout_s):
                while digest not in self._seen:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    def forgotten(self) -> None:
        """Say that this Core serves nothing, and what to do about it."""
        log.critical("%s", NO_MEMORY)
        count = len(self._registry.ranks())
        event = EventType.REGISTRY_FORGOTTEN
        self._emit(event, code=Code.UNAVAILABLE, count=count, detail=self._hex)

    def learned(self, key: Key) -> None:
        """Another record counts from now on: write it down soon."""
        self._learned.add(key)
        self._stir.set()
        if self._asking:
            self._seen.add(self.digest)
            self._moved.set()

    async def keep(self, keys: list[Key] | None = None) -> None:
        """Write down what is known under these keys (none: under all); raises ``OSError``."""
        if not self.has:
            return
        found = (
            self._registry.ranks()
            if keys is None
            else [(key, rank) for key in keys if (rank := self._registry.rank(key)) is not None]
        )
        await asyncio.to_thread(self._floors.raise_to, found)

    def start(self) -> None:
        """Write down what is learned, from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        said = False
        while True:
            await self._stir.wait()
            self._stir.clear()
            await self._began.wait()
            keys, self._learned = self._learned, set()
            try:
                await self.keep(list(keys))
            except Exception as error:  # noqa: BLE001 - what is not written down is forgotten
                self._learned |= keys
                why = error.strerror if isinstance(error, OSError) else describe(error)
                if not said:
                    log.error("the region's registry is not written down: %s; is there room in "
                              "this Core's state_dir? it is tried again", why)  # fmt: skip
                said = True
                await asyncio.sleep(RETRY_S)
                self._stir.set()
            else:
                said = False

    def _with_unmet(self, known: bytes) -> bytes:
        unmet = sorted(self._registry.below_floor)
        if not unmet:
            return known
        lines = (f"{'.'.join(key)} {self._registry.highest(key)}\n" for key in unmet)
        return sha256(known + "".join(lines).encode("ascii")).digest()

    @property
    def _hex(self) -> str:
        return self.digest.hex()


def _nobody() -> None:
    """Nobody has to be told."""
