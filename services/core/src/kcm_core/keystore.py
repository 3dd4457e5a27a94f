"""Wrapped keys in two stores: the region's bucket, and a directory that does not depend on it.

The directory decides. Revision n + 1 of a record is made there, once, and only by somebody who
found revision n in both stores; then it is brought to the bucket. So there is one record for each
revision, a crash in between leaves one that everybody goes on with, and no leftover of a race that
was lost can ever outrank the record in use.

Whoever reads brings the store that is behind up to the other, so a key is in both before its first
use. Records are verified: what is absent, unverifiable or older than one that this process or the
second store has seen is not served.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, TypeVar

from kcm_bus.connection import Connection
from kcm_bus.membership import Membership
from kcm_bus.ports import Entry
from kcm_bus.streams import last, put
from kcm_schemas import subjects
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import RootKeys, ServiceKeys
from kcm_schemas.signed import Kind
from kcm_trust.verify import Untrusted

from kcm_core.directory import Directory, Stored

log = logging.getLogger(__name__)

ATTEMPTS_MAX: Final = 8
"""Times that a record is read anew when somebody else changed it meanwhile."""

_STREAM: Final = subjects.bucket_stream(subjects.KEYS_BUCKET)

Key = tuple[str, ...]
"""``root`` and a tenant, or ``service``, a tenant and a service."""

K = TypeVar("K", RootKeys, ServiceKeys)


class KeyStore:
    """Reads and writes ``RootKeys`` and ``ServiceKeys`` of one region."""

    def __init__(
        self, connection: Connection, directory: Directory, membership: Membership
    ) -> None:
        self._connection: Final = connection
        self._directory: Final = directory
        self._me: Final = membership
        self._seen: dict[Key, int] = {}

    async def root(self, tenant: str) -> RootKeys | None:
        """A tenant's wrapped roots in this region; raises ``unavailable``."""
        found = await self._read(("root", tenant))
        return found if isinstance(found, RootKeys) else None

    async def service(self, tenant: str, service: str) -> ServiceKeys | None:
        """A service's wrapped keys in this region; raises ``unavailable``."""
        found = await self._read(("service", tenant, service))
        return found if isinstance(found, ServiceKeys) else None

    async def statement(self, key: Key) -> bytes | None:
        """A record as it was signed; raises ``unavailable``."""
        if await self._read(key) is None:
            return None
        subject = subjects.bucket_subject(subjects.KEYS_BUCKET, *key)
        stored = await last(self._connection, _STREAM, subject)
        return None if stored is None else stored.data

    async def put_root(self, keys: RootKeys) -> None:
        """Store the revision that follows the one that was read, the first one being 1.

        Raises ``conflict`` when it does not follow any more, and ``unavailable``; it may be stored
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
        await asyncio.to_thread(self._directory.create, ".".join(key), keys.revision, data)
        found = await self._read(key)
        if found is None or found.revision < keys.revision:
            raise KcmError(Code.UNAVAILABLE, "a key record is not in both stores yet")

    async def _read(self, key: Key) -> RootKeys | ServiceKeys | None:
        """The newest record, in both stores when this returns."""
        for _ in range(ATTEMPTS_MAX):
            stored = await last(
                self._connection, _STREAM, subjects.bucket_subject(subjects.KEYS_BUCKET, *key)
            )
            kept = None if stored is None else self._believe(key, stored.data)
            copy = await self._copy(key, needed=stored is None)
            copied = None if copy is None else self._believe(key, copy.data)
            newest = max((one for one in (kept, copied) if one), key=_revision, default=None)
            if (newest.revision if newest else 0) < self._seen.get(key, 0):
                raise KcmError(Code.UNAVAILABLE, "the stores brought back an older key record")
            if newest is None:
                return None
            if await self._level(key, stored, kept, copy):
                self._seen[key] = newest.revision
                return newest
        raise KcmError(Code.UNAVAILABLE, "a key record changes all the time")

    async def _level(
        self,
        key: Key,
        stored: Entry | None,
        kept: RootKeys | ServiceKeys | None,
        copy: Stored | None,
    ) -> bool:
        """Bring the store that is behind up to the other; ``False`` when one changed meanwhile."""
        here, there = kept.revision if kept else 0, copy.revision if copy else 0
        if copy is not None and there > here:
            subject = subjects.bucket_subject(subjects.KEYS_BUCKET, *key)
            try:
                sequence = stored.sequence if stored else 0
                await put(self._connection, subject, copy.data, expected=sequence)
            except KcmError as error:
                if error.code is not Code.CONFLICT:
                    raise
                return False
        elif stored is not None and there < here:
            try:
                name = ".".join(key)
                await asyncio.to_thread(self._directory.create, name, here, stored.data)
            except KcmError as error:
                # The bucket has what is needed; the copy is tried again at the next reading.
                log.error("the second key store lacks a record: %s", error.code.value)
        elif stored is not None and copy is not None and stored.data != copy.data:
            raise KcmError(Code.UNAVAILABLE, "the two key stores differ in the same revision")
        return True

    async def _copy(self, key: Key, *, needed: bool) -> Stored | None:
        """What the second store has. Unless it is needed, a fault there only is an incident."""
        try:
            copy = await asyncio.to_thread(self._directory.latest, ".".join(key))
            if copy is not None and self._believe(key, copy.data).revision != copy.revision:
                raise _not_believed()
        except KcmError as error:
            if needed:
                raise
            log.error("the second key store is of no use: %s", error.detail)
            return None
        return copy

    def _believe(self, key: Key, data: bytes) -> RootKeys | ServiceKeys:
        """A record that says what its key says; raises ``unavailable``."""
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
    return KcmError(Code.UNAVAILABLE, "a key record is not signed by a Core of this region")
