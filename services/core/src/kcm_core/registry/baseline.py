"""Whether this Core remembers its region's registry, and what it remembers.

The baseline is the file of floors on the Core's own disk. A Core that finds the file at its start
knows below which revisions it must accept nothing. A Core without the file (a new disk, a new Core,
a restored region) cannot distinguish an old registry from the newest one. Until it has a
baseline, it serves nothing, changes nothing in either store, and shows no registry to others. A
Core with a baseline soon writes down what any Core accepts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.registry_lease import NO_BASELINE, RegistryLease
from kcm_killswitch.model.registry_objects import Key
from kcm_runtime.audit.port import Emit
from kcm_runtime.error_text import describe
from kcm_runtime.tasks import TaskSet
from kcm_schemas.audit import EventType
from kcm_schemas.codes import Code, KcmError

from kcm_core.registry.floors import Floors

log = logging.getLogger(__name__)

RETRY_S: Final = 1.0
"""Seconds until a failed write is tried again."""


class RegistryBaseline:
    """The floors of one Core, and the effects of their existence."""

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
        """Keys whose floor on disk may be too low."""
        self._seen: set[bytes] = set()
        """Digests of every registry that was known since the question was sent."""
        self._asking = False
        self._stir: Final = asyncio.Event()
        self._moved: Final = asyncio.Event()
        self._tasks: Final = TaskSet()
        self._on_lost: Callable[[], None] = _nobody
        self._unmet: tuple[bytes, bytes] | None = None
        """A registry's digest, and the baseline's digest at that time."""
        for key, floor in floors.items():
            registry.floor(key, *floor)
        if floors.fresh:
            lease.without_baseline()
        else:
            self._began.set()

    @property
    def present(self) -> bool:
        """Whether this Core remembers."""
        return self._began.is_set()

    def require(self) -> None:
        """Raise ``unavailable`` for a Core without a baseline."""
        if not self.present:
            raise KcmError(Code.UNAVAILABLE, NO_BASELINE)

    async def wait(self, timeout_s: float) -> None:
        """Wait until this Core remembers, or until the timeout."""
        try:
            await asyncio.wait_for(self._began.wait(), timeout_s)
        except TimeoutError:
            return

    @property
    def digest(self) -> bytes:
        """32 bytes over what is known, and over each floor that is above what is known.

        A Core that remembers more than both stores have agrees with no Core that has only them.
        """
        known = self._registry.digest
        if self._unmet is None or self._unmet[0] != known:
            self._unmet = known, self._with_unmet(known)
        return self._unmet[1]

    async def begin(
        self, how: EventType, agreed: bytes, *, actor: str | None = None, detail: str = ""
    ) -> None:
        """Remember what is known now, on disk before it is served; no effect if it did before.

        ``agreed`` is the agreed digest: raises ``conflict`` if this Core knows another registry.
        Raises ``OSError`` if the disk does not store it: nothing has changed then.
        """
        async with self._beginning:
            if self.present:
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
        """Whether this Core remembers an empty registry and has accepted nothing since."""
        return self.present and self._floors.unused

    async def use(self) -> None:
        """Remember that an entry is accepted; on disk when this returns. Raises ``OSError``."""
        await asyncio.to_thread(self._floors.use)

    def on_lost(self, told: Callable[[], None]) -> None:
        """Call ``told`` when this Core loses its baseline."""
        self._on_lost = told

    async def lose(self) -> None:
        """Drop the baseline: the stores were not empty when this Core began with an empty one."""
        async with self._beginning:
            if not self.unused:
                return
            self._began.clear()
            self._lease.without_baseline()
            log.critical(
                "this Core started with an empty registry, but the second key store has entries "
                "that no Core has accepted since: the store was absent at the start, or old files "
                "were restored; this Core now has no baseline of the registry, and `kcm registry "
                "show` says what to do"
            )
            try:
                await asyncio.to_thread(self._floors.forget)
            except OSError as error:
                # The next start detects the same.
                log.error("the file of floors is not removed: %s", error.strerror)
        self._on_lost()

    def asking(self) -> None:
        """Record what is known from now on: entries may be accepted before the answer arrives."""
        self._asking, self._seen = True, {self.digest}

    def asked(self) -> None:
        """Stop recording: no question is open."""
        self._asking, self._seen = False, set()

    async def reaches(self, digest: bytes, timeout_s: float) -> bool:
        """Whether this Core knows the answer's registry, knew it since it asked, or soon does."""
        try:
            async with asyncio.timeout(timeout_s):
                while digest not in self._seen:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    def forgotten(self) -> None:
        """Report that this Core serves nothing, and what to do about it."""
        log.critical("%s", NO_BASELINE)
        count = len(self._registry.ranks())
        event = EventType.REGISTRY_FORGOTTEN
        self._emit(event, code=Code.UNAVAILABLE, count=count, detail=self._hex)

    def learned(self, key: Key) -> None:
        """Another entry counts from now on: write it down soon."""
        self._learned.add(key)
        self._stir.set()
        if self._asking:
            self._seen.add(self.digest)
            self._moved.set()

    async def keep(self, keys: list[Key] | None = None) -> None:
        """Write down what is known under these keys (``None``: all); raises ``OSError``."""
        if not self.present:
            return
        found = (
            self._registry.ranks()
            if keys is None
            else [(key, rank) for key in keys if (rank := self._registry.rank(key)) is not None]
        )
        await asyncio.to_thread(self._floors.raise_to, found)

    def start(self) -> None:
        """Write down what is learned, from now on."""
        self._tasks.spawn(self._run())

    def close(self) -> None:
        """Stop."""
        self._tasks.close()

    async def _run(self) -> None:
        said = False
        while True:
            await self._stir.wait()
            self._stir.clear()
            await self._began.wait()
            keys, self._learned = self._learned, set()
            try:
                await self.keep(list(keys))
            except Exception as error:  # noqa: BLE001 - what is not written down would be forgotten
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
    """Do nothing: no callback is set."""


def unkept(error: OSError) -> KcmError:
    """The refusal of a Core whose disk does not store what it has to remember."""
    why = error.strerror or "its disk"
    return KcmError(
        Code.UNAVAILABLE,
        f"this Core cannot write down the registry: {why}; make room in its state_dir",
    )
