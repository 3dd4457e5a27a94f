"""Repair of the two stores: the entry that counts is put where a store has something else.

A Core that remembers its region's registry repairs both stores. A Core without a baseline only
learns from them (``kcm_core.registry.baseline``). Every repair is recorded as an incident, because
the product's own writes never make one necessary.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.registry_objects import Key, RegistryObject, is_key, key_of
from kcm_killswitch.replica.log_fields import of_object
from kcm_killswitch.replica.registry_follower import RegistryFollower
from kcm_runtime.audit.pacing import Paced
from kcm_runtime.audit.port import Emit
from kcm_runtime.error_text import describe
from kcm_runtime.logs import fields
from kcm_runtime.nats.ports import Entry
from kcm_schemas.audit import EventType
from kcm_schemas.codes import Code, KcmError
from kcm_trust.verify import Untrusted

from kcm_core.registry.baseline import RegistryBaseline, unkept
from kcm_core.registry.stores import RegistryStores, subject_of

log = logging.getLogger(__name__)


class RegistryRepair:
    """Collects the keys of entries that do not count, and repairs them."""

    def __init__(
        self,
        *,
        stores: RegistryStores,
        feed: RegistryFollower,
        registry: Registry,
        baseline: RegistryBaseline,
        on_pending: Callable[[], None],
        emit: Emit,
    ) -> None:
        """``on_pending`` is called when a key is added, and must not wait."""
        self._stores: Final = stores
        self._feed: Final = feed
        self._registry: Final = registry
        self._baseline: Final = baseline
        self._on_pending: Final = on_pending
        self._emit: Final = emit
        self._wrong: dict[Key, str] = {}
        self._strange = False
        self._incidents: Final = Paced()

    @property
    def pending(self) -> list[Key]:
        """The keys whose entries are still to be repaired."""
        return list(self._wrong)

    def close(self) -> None:
        """Record the incidents that are only counted so far."""
        self._incidents.close()

    def add(self, key: Key, what: str) -> None:
        """Have an entry of the bucket repaired: it does not count, or may be missing.

        ``what`` is the reason, if it is known. A name that is no key of an entry is ignored.
        """
        if not is_key(key):
            if not self._strange:
                log.warning(
                    "the registry's bucket has an entry under an invalid key: %.80r", ".".join(key)
                )
            self._strange = True  # logged once: there may be any number of them
            return
        self._wrong.setdefault(key, what)
        self._on_pending()

    async def run(self) -> None:
        """Repair every pending key; a key whose repair fails stays pending."""
        wrong, self._wrong = self._wrong, {}
        for key, what in wrong.items():
            try:
                await self.repair(key, what)
            except Exception as error:  # noqa: BLE001 - the others must be repaired, too
                log.warning(
                    "the registry is not repaired yet: %s", describe(error), extra=key_fields(key)
                )
                self._wrong.setdefault(key, what)

    async def repair(self, key: Key, what: str) -> None:
        """Store the entry that counts under its key, if the bucket has something else there."""
        raw = self._feed.raw(key)
        if raw is None:
            if not await self.restore(key):
                log.warning(
                    "a registry entry does not verify in any store: %s",
                    what,
                    extra=key_fields(key),
                )
            return
        stored = await self._stores.stored(key)
        if stored is not None and stored.data == raw:
            return
        if stored is not None and stored.data and await self._known(stored):
            return  # the same entry, accepted by another Core
        await self.put_in_bucket(key, raw)
        self._incident(key, what or "an entry was missing from the bucket")

    async def restore(self, key: Key) -> bool:
        """Take an entry that the bucket has lost from the second store.

        ``False`` if the second store has none, or one that does not verify. Raises ``unavailable``.
        """
        copy = await self._stores.copy(key)
        if copy is None:
            return False
        try:
            obj = self._feed.verify(Entry(0, subject_of(key), copy.data))
        except Untrusted as error:
            log.error(
                "an entry in the second store is not believed: %s", error, extra=key_fields(key)
            )
            return False
        if self._baseline.unused:
            await self._baseline.lose()
        what = "the bucket had an older entry than the second store, or none"
        await self.learn(obj, copy.data)
        if not self._baseline.present:
            self.add(key, what)
            return True
        try:
            await self.put_in_bucket(key, copy.data)
        except KcmError as error:
            # It counts here from now on; readers of the bucket differ until it is there, too.
            log.error(
                "a registry entry cannot be put back yet: %s",
                error.detail,
                extra=key_fields(key),
            )
            self.add(key, what)
        else:
            self._incident(key, what)
        return True

    async def put_in_bucket(self, key: Key, entry: bytes) -> None:
        """Store an entry that counts in the bucket, unless it is there, or one that counts more.

        Raises ``conflict`` if another Core overtakes this one with something else, and
        ``unavailable``.
        """
        stored = await self._stores.stored(key)
        if stored is not None and stored.data == entry:
            return
        try:
            await self._stores.put(key, entry, stored.sequence if stored is not None else 0)
        except KcmError as error:
            if error.code is not Code.CONFLICT:
                raise
            again = await self._stores.stored(key)
            if again is None or not await self._known(again):
                raise

    async def learn(self, obj: RegistryObject, raw: bytes) -> None:
        """Apply a verified object, and remember it; raises ``unavailable`` for a full disk."""
        self._feed.learn(obj, raw)
        try:
            await self._baseline.keep([key_of(obj)])
        except OSError as error:
            raise unkept(error) from None

    async def copy(self, key: Key, revision: int, raw: bytes) -> bool:
        """Create an entry that the second store lacks; whether the second store has it now."""
        if not self._baseline.present:
            return False
        try:
            await self._stores.create_copy(key, revision, raw)
        except KcmError as error:
            if error.code is not Code.CONFLICT:
                log.error(
                    "the second key store lacks an entry: %s",
                    error.detail,
                    extra=key_fields(key),
                )
                return False
        return True

    async def heal_copy(self, key: Key) -> None:
        """Repair a damaged entry in the second store; leave it unchanged if it is not damaged."""
        raw = self._feed.raw(key)
        try:
            copy = await self._stores.copy(key)
            if raw is None or copy is None or copy.revision != self._registry.revision(key):
                return
            if copy.data == raw or self._is_entry(key, copy.data):
                return
            healed = await self._stores.replace_copy(key, copy.revision, raw, copy.data)
        except KcmError as error:
            log.warning(
                "the second key store cannot be looked at: %s", error.detail, extra=key_fields(key)
            )
            return
        if healed:
            self._incident(key, "the second store had a damaged entry")

    def _is_entry(self, key: Key, data: bytes) -> bool:
        try:
            return key_of(self._feed.verify(Entry(0, subject_of(key), data))) == key
        except Untrusted:
            return False

    async def _known(self, stored: Entry) -> bool:
        """Whether the stored entry counts as much as the known one, or more: it is then learned."""
        try:
            obj = self._feed.verify(stored)
        except Untrusted:
            return False
        if obj.revision < self._registry.revision(key_of(obj)):
            return False
        await self.learn(obj, stored.data)
        return True

    def _incident(self, key: Key, what: str) -> None:
        self._incidents.record("repaired", partial(self._tell_repaired, key, what))

    def _tell_repaired(self, key: Key, what: str, count: int) -> None:
        log.error("the registry was repaired (%d times): %s", count, what, extra=key_fields(key))
        self._emit(
            EventType.REGISTRY_REPAIRED,
            tenant=key[1] if key[0] in ("tenant", "service") and count == 1 else None,
            code=Code.TAMPERED,
            count=count,
            detail=f"{'.'.join(key)}: {what}",
        )


def key_fields(key: Key) -> dict[str, object]:
    """Name the tenant, service or link of an entry in the log; the key passed the grammar."""
    return fields(**of_object(key))
