"""The registry of a region as its Cores maintain it: accepted once, in two stores, never set back.

An operator's statement counts from the moment at which a Core has checked it, has added its own
signed acceptance, and has stored that entry in the second store, which creates every revision only
once. From there the entry goes to the bucket, which all instances read. A Core that finds something
other than the entry that counts in the bucket (an older entry, garbage, nothing) puts the known
entry back and records an incident. A Core accepts nothing below what it knew once, also after a
restart.

A Core without a baseline (``kcm_core.registry.baseline``) reads both stores and changes nothing
there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.registry_objects import Key, RegistryObject, is_key, key_of
from kcm_killswitch.replica.registry_follower import RegistryFollower
from kcm_runtime.error_text import describe
from kcm_runtime.host import Host
from kcm_runtime.nats.connection import Connection
from kcm_runtime.tasks import TaskSet
from kcm_schemas.audit import EventType
from kcm_schemas.codes import Code, KcmError

from kcm_core.keys.file_store import FileKeyStore
from kcm_core.registry.acceptance import Acceptance
from kcm_core.registry.baseline import RegistryBaseline, unkept
from kcm_core.registry.inspection import RegistryInspection
from kcm_core.registry.repair import RegistryRepair, key_fields
from kcm_core.registry.stores import RegistryStores

log = logging.getLogger(__name__)

RETRY_S: Final = 1.0
"""Seconds until a failed repair is tried again."""

LOOK_S: Final = 30.0
"""Seconds between two inspections of the stores."""

_COMMANDS: Final = {
    "tenant": "kcm tenant create",
    "link": "kcm l1 link",
    "service": "kcm service create",
    "app": "kcm app change",
}
"""The command that signs an entry again, by the entry's noun."""


class RegistryKeeper:
    """Accepts entries, and keeps both stores in order."""

    def __init__(
        self,
        host: Host,
        registry: Registry,
        *,
        connection: Connection,
        feed: RegistryFollower,
        second_store: FileKeyStore,
        baseline: RegistryBaseline,
        settled: Callable[[], Awaitable[object]],
        compared: Callable[[], None],
    ) -> None:
        """``settled`` returns after this Core's lease entry shows the current registry.

        ``compared`` is called when the registry has everything that the second store has.
        """
        self._feed: Final = feed
        self._registry: Final = registry
        self._baseline: Final = baseline
        self._settled: Final = settled
        self._compared: Final = compared
        self._emit: Final = host.emit
        self._stores: Final = RegistryStores(connection, second_store)
        self._acceptance: Final = Acceptance(host.me, self._stores)
        self._comparing = False
        self._stir: Final = asyncio.Event()
        self._tasks: Final = TaskSet()
        self.repairs: Final = RegistryRepair(
            stores=self._stores,
            feed=feed,
            registry=registry,
            baseline=baseline,
            on_pending=self._stir.set,
            emit=host.emit,
        )
        self._inspection: Final = RegistryInspection(self._stores, feed, self.repairs)
        feed.watch(self.wrong, baseline.learned)

    async def start(self) -> None:
        """Synchronize bucket and second store, then monitor them. The feed has started."""
        while True:
            try:
                await self.reconcile()
            except (KcmError, OSError) as error:
                why = error.detail if isinstance(error, KcmError) else error.strerror
                log.error("waiting at the start: %s", why)
                await asyncio.sleep(RETRY_S)
            else:
                break
        self._baseline.start()
        self._tasks.spawn(self._run())

    def close(self) -> None:
        """Stop."""
        self._tasks.close()
        self._baseline.close()
        self.repairs.close()

    async def accept(self, raw: bytes, obj: RegistryObject) -> None:
        """Accept a verified entry that this Core has checked; on return both stores have it.

        Raises ``conflict`` if another entry with this revision was accepted before. Raises
        ``unavailable`` if a store failed: then the entry may be stored in one of them, and the same
        request, sent again, completes the work.
        """
        self._baseline.require()
        if self._baseline.unused:
            await self._first()
        entry = await self._acceptance.create(raw, obj)
        await self.repairs.put_in_bucket(key_of(obj), entry)
        await self.repairs.learn(self._acceptance.object_of(entry), entry)
        await self._settled()

    async def _first(self) -> None:
        """Load the entries of the second store, before this Core accepts its first one."""
        try:
            await self.reconcile()
            self._baseline.require()
            await self._baseline.use()
        except OSError as error:
            raise unkept(error) from None

    def wrong(self, key: Key, what: str) -> None:
        """The bucket has something other than what counts under a key: repair it."""
        if not self._tasks.closed:
            self.repairs.add(key, what)

    def compare(self) -> None:
        """Another instance knows a different registry: read everything again soon."""
        self._comparing = True
        self._stir.set()

    @property
    def comparing(self) -> bool:
        """Whether the stores are to be compared, for the first time or again."""
        return self._comparing

    @property
    def idle(self) -> bool:
        """Whether nothing is to be done before the next inspection."""
        return not self._stir.is_set()

    async def empty(self) -> bool:
        """Whether neither store ever had anything, as far as they show; raises ``unavailable``.

        Any stored data counts, valid or not: data that does not verify by this Core's roster may
        verify by the next one.
        """
        heads = await self._stores.heads()
        return self._feed.empty and not heads and not await self._stores.ever_had()

    async def reconcile(self) -> bool:
        """Synchronize the two stores; raises ``unavailable``.

        ``False`` if the second store has an entry above the known revision that does not verify.
        The Core continues without it, but does not know everything.
        """
        whole = True
        heads = await self._stores.heads()
        for key, revision in heads.items():
            if is_key(key) and revision > self._registry.revision(key):
                await self.repairs.restore(key)
                whole = whole and revision <= self._registry.revision(key)
        for obj in list(self._registry.objects()):
            key = key_of(obj)
            raw = self._feed.raw(key)
            lacks = raw is not None and heads.get(key, 0) < obj.revision
            if raw is not None and lacks and not await self.repairs.copy(key, obj.revision, raw):
                self._comparing = True
        await self._baseline.keep()
        self._report_lost()
        return whole

    async def round(self) -> None:
        """Compare the stores if another instance differs, and repair what was found wrong."""
        if self._comparing:
            await self._compare()
        if self._baseline.present:  # otherwise, a Core that knows the registry repairs it
            await self.repairs.run()

    async def inspect(self) -> None:
        """Check that both stores have every entry; the next round repairs the bucket."""
        if self._baseline.present:
            await self._inspection.run()
        else:
            self._comparing = True  # an operator may have restored the second store

    async def _run(self) -> None:
        while not self._tasks.closed:
            try:
                await asyncio.wait_for(self._stir.wait(), LOOK_S)
            except TimeoutError:
                await self.inspect()
            self._stir.clear()
            await self.round()
            if self._baseline.present and self.repairs.pending:
                await asyncio.sleep(RETRY_S)
                self._stir.set()

    async def _compare(self) -> None:
        self._comparing = False
        self._feed.read_again()
        try:
            whole, why = await self.reconcile(), "the second store has an entry above what is known"
        except Exception as error:  # noqa: BLE001 - it is tried again
            whole, why = False, describe(error)
        if whole:
            self._compared()
        else:
            log.warning("the registry could not be compared: %s", why)
            self._comparing = True  # at the next check: the differing Core may have ended by then

    def _report_lost(self) -> None:
        """Report the entries that both stores have only below this Core's floors."""
        for key in self._registry.below_floor:
            log.critical(
                "the registry's %s was set back, in the bucket and the second store: nothing older "
                "is believed; restore the second store from its backup, or else sign it again with "
                "`%s` and a revision above %d",
                ".".join(key),
                _COMMANDS[key[0]],
                self._registry.highest(key),
                extra=key_fields(key),
            )
            self._emit(
                EventType.REGISTRY_LOST,
                tenant=key[1] if key[0] in ("tenant", "service") else None,
                code=Code.UNAVAILABLE,
                detail=".".join(key),
            )
