"""Wrapped keys in two stores: the region's bucket, and a directory that does not depend on it.

A new revision is made by compare-and-set in both, the directory first, with a number above the
highest in either; a conflict in any of them stops it. So a key is in both stores before its first
use, and a crash in between leaves at most a revision that nobody has used.

Records are read from the bucket's leader and verified: what is absent, unverifiable or older than
one that this process has seen is not served.
"""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar

from kcm_bus.connection import Connection
from kcm_bus.membership import Membership
from kcm_bus.streams import last, put
from kcm_schemas import subjects
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import RootKeys, ServiceKeys
from kcm_schemas.signed import Kind
from kcm_trust.verify import Untrusted

from kcm_core.directory import Directory

_STREAM: Final = subjects.bucket_stream(subjects.KEYS_BUCKET)

K = TypeVar("K", RootKeys, ServiceKeys)


class KeyStore:
    """Reads and writes ``RootKeys`` and ``ServiceKeys`` of one region."""

    def __init__(
        self, connection: Connection, directory: Directory, membership: Membership
    ) -> None:
        self._connection: Final = connection
        self._directory: Final = directory
        self._me: Final = membership
        self._seen: dict[str, int] = {}

    async def root(self, tenant: str) -> RootKeys | None:
        """A tenant's wrapped roots in this region."""
        found = await self._read(("root", tenant))
        return None if found is None else self._root(tenant, found)

    async def service(self, tenant: str, service: str) -> ServiceKeys | None:
        """A service's wrapped keys in this region."""
        found = await self._read(("service", tenant, service))
        return None if found is None else self._service(tenant, service, found)

    async def next_revision(self, *key: str) -> int:
        """A revision above the highest in either store."""
        name = ".".join(key)
        stored = await asyncio.to_thread(self._directory.latest, name)
        return max(self._seen.get(name, 0), stored.revision if stored else 0) + 1

    async def put_root(self, keys: RootKeys) -> None:
        """Store a new revision in both stores; raises ``conflict`` or ``unavailable``."""
        await self._write(("root", keys.tenant), Kind.ROOT_KEYS, keys)

    async def put_service(self, keys: ServiceKeys) -> None:
        """Store a new revision in both stores; raises ``conflict`` or ``unavailable``."""
        await self._write(("service", keys.tenant, keys.service), Kind.SERVICE_KEYS, keys)

    async def _read(self, key: tuple[str, ...]) -> bytes | None:
        subject = subjects.bucket_subject(subjects.KEYS_BUCKET, *key)
        found = await last(self._connection, _STREAM, subject)
        if found is not None:
            return found.data
        stored = await asyncio.to_thread(self._directory.latest, ".".join(key))
        if stored is not None:
            # The bucket lost a record that the second store has: bring it back, if it is believed.
            self._believe(key, stored.data)
            await put(self._connection, subject, stored.data, expected=0)
            return stored.data
        if ".".join(key) in self._seen:
            raise KcmError(Code.UNAVAILABLE, "a key record vanished from both stores")
        return None

    async def _write(self, key: tuple[str, ...], kind: Kind, keys: K) -> None:
        data = encode(self._me.identity.sign(kind, keys))
        subject = subjects.bucket_subject(subjects.KEYS_BUCKET, *key)
        current = await last(self._connection, _STREAM, subject)
        if current is not None and self._believe(key, current.data).revision >= keys.revision:
            raise KcmError(Code.CONFLICT)
        await asyncio.to_thread(self._directory.create, ".".join(key), keys.revision, data)
        await put(self._connection, subject, data, expected=current.sequence if current else 0)
        self._seen[".".join(key)] = keys.revision

    def _believe(self, key: tuple[str, ...], data: bytes) -> RootKeys | ServiceKeys:
        if key[0] == "root":
            return self._root(key[1], data)
        return self._service(key[1], key[2], data)

    def _root(self, tenant: str, data: bytes) -> RootKeys:
        try:
            keys = self._me.verifier.root_keys(data)
        except Untrusted:
            raise _not_believed() from None
        if (keys.tenant, keys.region) != (tenant, self._me.region):
            raise _not_believed()
        return self._fresh(f"root.{tenant}", keys)

    def _service(self, tenant: str, service: str, data: bytes) -> ServiceKeys:
        try:
            keys = self._me.verifier.service_keys(data)
        except Untrusted:
            raise _not_believed() from None
        if (keys.tenant, keys.service, keys.region) != (tenant, service, self._me.region):
            raise _not_believed()
        return self._fresh(f"service.{tenant}.{service}", keys)

    def _fresh(self, name: str, keys: K) -> K:
        if keys.revision < self._seen.get(name, 0):
            raise KcmError(Code.UNAVAILABLE, "the store brought back an older key record")
        self._seen[name] = keys.revision
        return keys


def _not_believed() -> KcmError:
    return KcmError(Code.UNAVAILABLE, "a key record is not signed by a Core of this region")
