"""Wrapped keys in two stores: the region's bucket, and a directory that does not depend on it.

The directory decides. Revision n + 1 of an entry is created there, once, and only by a Core that
found revision n in both stores; then it is copied to the bucket. So there is one entry for each
revision. A crash in between leaves an entry that all Cores continue with, and no remains of a lost
race can ever outrank the entry in use.

A Core that reads an entry updates the store that is out of date, so a key is in both before its
first use. Entries are verified: an entry that is absent, does not verify, or is older than one that
this process or the second store has seen is not served. Garbage in one store counts as absent: the
entry is healed from the other store, and that is recorded. Garbage in one store without a good
entry in the other does not mean that there is no key: an operator has to restore a backup.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from kcm_runtime.audit.pacing import Paced
from kcm_runtime.host import Host
from kcm_runtime.logs import fields
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.ports import Entry
from kcm_runtime.nats.streams import keep, last, put
from kcm_schemas import subjects
from kcm_schemas.audit import EventType
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import RootKeys, ServiceKeys
from kcm_schemas.signed import Kind
from kcm_trust.verify import Untrusted

from kcm_core.keys.file_store import FileKeyStore, Stored

log = logging.getLogger(__name__)

ATTEMPTS_MAX: Final = 8
"""Attempts to read an entry that another process changes meanwhile."""

_STREAM: Final = subjects.bucket_stream(subjects.KEYS_BUCKET)

_LOST: Final = (
    "key entry, and neither the bucket kcm-keys nor the second key store has a good one: "
    "restore the second key store from its backup"
)
"""What is lost, and how to restore it: `docs/deployment.md` has the commands."""

Key = tuple[str, ...]
"""``root`` and a tenant, or ``service``, a tenant and a service."""

K = TypeVar("K", RootKeys, ServiceKeys)


@dataclass(frozen=True, slots=True)
class _Second:
    """The second store's copy of an entry: a good one, an invalid one, or nothing."""

    copy: Stored | None = None
    keys: RootKeys | ServiceKeys | None = None
    """The content of the good copy."""
    damaged: Stored | None = None


class KeyStore:
    """Reads and writes ``RootKeys`` and ``ServiceKeys`` of one region."""

    def __init__(
        self,
        host: Host,
        connection: Connection,
        second_store: FileKeyStore,
    ) -> None:
        self._me: Final = host.me
        self._emit: Final = host.emit
        self._connection: Final = connection
        self._second_store: Final = second_store
        self._seen: dict[Key, int] = {}
        self._healings: Final = Paced()

    def close(self) -> None:
        """Record what was healed since the last event."""
        self._healings.close()

    async def root(self, tenant: str) -> RootKeys | None:
        """A tenant's wrapped roots in this region; raises ``unavailable``."""
        found = await self._read(("root", tenant))
        return found if isinstance(found, RootKeys) else None

    async def service(self, tenant: str, service: str) -> ServiceKeys | None:
        """A service's wrapped keys in this region; raises ``unavailable``."""
        found = await self._read(("service", tenant, service))
        return found if isinstance(found, ServiceKeys) else None

    async def statement(self, key: Key) -> bytes | None:
        """An entry as it was signed; raises ``unavailable``."""
        if await self._read(key) is None:
            return None
        subject = subjects.bucket_subject(subjects.KEYS_BUCKET, *key)
        stored = await last(self._connection, _STREAM, subject)
        return None if stored is None else stored.data

    async def put_root(self, keys: RootKeys) -> None:
        """Store the revision that follows the one that was read; the first one is 1.

        Raises ``conflict`` if it does not follow any more, and ``unavailable``; it may be stored
        then.
        """
        await self._write(("root", keys.tenant), Kind.ROOT_KEYS, keys)

    async def put_service(self, keys: ServiceKeys) -> None:
        """As ``put_root``."""
        await self._write(("service", keys.tenant, keys.service), Kind.SERVICE_KEYS, keys)

    async def _write(self, key: Key, kind: Kind, keys: K) -> None:
        known = await self._read(key)
        if keys.revision != (known.revision if known else 0) + 1:
            raise KcmError(Code.CONFLICT)
        data = encode(self._me.identity.sign(kind, keys))
        await asyncio.to_thread(self._second_store.create, ".".join(key), keys.revision, data)
        found = await self._read(key, made=keys.revision)
        if found is None or found.revision < keys.revision:
            raise KcmError(Code.UNAVAILABLE, "a key entry is not in both stores yet")

    async def _read(self, key: Key, *, made: int = 0) -> RootKeys | ServiceKeys | None:
        """The newest entry, in both stores when this returns.

        Revision ``made`` was just created in the second store: its copy to the bucket is not a
        repair.
        """
        for _ in range(ATTEMPTS_MAX):
            stored = await last(
                self._connection, _STREAM, subjects.bucket_subject(subjects.KEYS_BUCKET, *key)
            )
            kept = None if stored is None else self._if_believed(key, stored.data)
            second = await self._copy(key, stored, kept)
            known = [one for one in (kept, second.keys) if one]
            newest = max(known, key=_revision, default=None)
            if (newest.revision if newest else 0) < self._seen.get(key, 0):
                raise KcmError(Code.UNAVAILABLE, f"the stores brought back an older {_LOST}")
            if newest is None:
                if stored is not None:  # an entry was replaced by something else
                    raise _not_believed()
                return None
            if await self._level(key, stored, kept, second, made):
                self._seen[key] = newest.revision
                return newest
        raise KcmError(Code.UNAVAILABLE, "a key entry changes all the time")

    async def _level(
        self,
        key: Key,
        stored: Entry | None,
        kept: RootKeys | ServiceKeys | None,
        second: _Second,
        made: int,
    ) -> bool:
        """Update the store that is out of date; ``False`` if one changed meanwhile."""
        copy = second.copy
        here, there = kept.revision if kept else 0, copy.revision if copy else 0
        if copy is not None and there > here:
            subject = subjects.bucket_subject(subjects.KEYS_BUCKET, *key)
            try:
                sequence = stored.sequence if stored else 0
                if there == made:
                    await keep(self._connection, _STREAM, subject, copy.data, expected=sequence)
                else:  # the second store serves it: no read-back is needed
                    await put(self._connection, subject, copy.data, expected=sequence)
            except KcmError as error:
                if error.code is not Code.CONFLICT:
                    raise
                return False
            if there != made or (stored is not None and kept is None):
                self._healed(key, "the bucket", garbage=stored is not None and kept is None)
        elif stored is not None and there < here:
            await self._give_back(key, here, stored.data, second.damaged)
        elif stored is not None and copy is not None and stored.data != copy.data:
            raise KcmError(Code.UNAVAILABLE, "the two key stores differ in the same revision")
        return True

    async def _give_back(
        self, key: Key, revision: int, data: bytes, damaged: Stored | None
    ) -> None:
        """Copy the bucket's entry to the second store. A failure there is only an incident."""
        name = ".".join(key)
        try:
            if damaged is None or damaged.revision != revision:
                await asyncio.to_thread(self._second_store.create, name, revision, data)
            elif not await asyncio.to_thread(
                self._second_store.replace, name, revision, data, damaged.data
            ):
                return  # another Core was faster
        except KcmError as error:
            # The bucket has what is needed; the next read tries the copy again.
            log.error("the second key store lacks an entry: %s", error.detail, extra=_named(key))
        else:
            self._healed(key, "the second key store", garbage=damaged is not None)

    def _healed(self, key: Key, store: str, *, garbage: bool) -> None:
        """Record that a store had lost an entry, and that it was restored from the other one."""
        what = "had something else in the place of" if garbage else "did not have"
        told = f"{store} {what}"
        self._healings.record(told, partial(self._tell_healed, key, told, garbage=garbage))

    def _tell_healed(self, key: Key, told: str, count: int, *, garbage: bool) -> None:
        noun, tenant, *service = key
        log.error(
            "%s an entry; it was healed from the other store (%d times)",
            told,
            count,
            extra=_named(key),
        )
        self._emit(
            EventType.STORE_HEALED,
            tenant=tenant if count == 1 else None,
            service=service[0] if service and count == 1 else None,
            code=Code.TAMPERED if garbage else Code.OK,
            count=count,
            detail=f"{told} the {noun} keys of {'.'.join(key[1:])}; healed from the other store",
        )

    async def _copy(
        self, key: Key, stored: Entry | None, kept: RootKeys | ServiceKeys | None
    ) -> _Second:
        """Read the copy in the second store.

        If the read fails, the failure is logged, and raised only if the bucket has no copy either.
        A copy with the same bytes as the bucket's is not verified again: that would be most of the
        cost of a read.
        """
        try:
            found = await asyncio.to_thread(self._second_store.latest, ".".join(key))
        except KcmError as error:
            if kept is None:
                raise
            log.error("the second key store is of no use: %s", error.detail, extra=_named(key))
            return _Second()
        if found is None:
            return _Second()
        same = stored is not None and stored.data == found.data
        copied = kept if same else self._if_believed(key, found.data)
        if copied is not None and copied.revision == found.revision:
            return _Second(copy=found, keys=copied)
        if kept is None:
            raise _not_believed()
        log.error(
            "the second key store has something else in the place of an entry", extra=_named(key)
        )
        return _Second(damaged=found)

    def _if_believed(self, key: Key, data: bytes) -> RootKeys | ServiceKeys | None:
        """A valid entry that belongs under its key; ``None`` for anything else."""
        try:
            return self._believe(key, data)
        except KcmError:
            return None

    def _believe(self, key: Key, data: bytes) -> RootKeys | ServiceKeys:
        """A valid entry that belongs under its key; raises ``unavailable``."""
        keys: RootKeys | ServiceKeys
        try:
            if key[0] == "root":
                keys = self._me.verifier.root_keys(data)
                said: Key = ("root", keys.tenant)
            else:
                keys = self._me.verifier.service_keys(data)
                said = ("service", keys.tenant, keys.service)
        except Untrusted:
            raise _not_believed() from None
        if said != key or keys.region != self._me.region:
            raise _not_believed()
        return keys


def _revision(keys: RootKeys | ServiceKeys) -> int:
    return keys.revision


def _not_believed() -> KcmError:
    return KcmError(Code.UNAVAILABLE, f"no Core of this region signed what is stored as a {_LOST}")


def _named(key: Key) -> dict[str, object]:
    """Name the tenant and service of an entry in the log."""
    _, tenant, *service = key
    return fields(tenant=tenant, service=service[0]) if service else fields(tenant=tenant)
