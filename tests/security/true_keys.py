"""The true keys of a tenant, computed from what is stored, by the second decoder.

Root key, seal key and the second key store are read as an attacker with every file would. The keys
of a Gateway's pool are in no file: their wrapped forms are taken from the Gateway's own memory, by
the nonce prefix that they share with the keys of records.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from kcm_core.providers.softkey.provider import SoftkeyProvider
from kcm_core.providers.uri import SoftkeyUri
from kcm_deployment.trust_files import Trust
from kcm_schemas.codec import decode
from kcm_schemas.labels import L1_CONTEXT, ctx
from kcm_schemas.registry import RootKeys, ServiceKeys
from kcm_schemas.signed import read_signed

from tests.security import scan
from tests.vectors import decoder
from tests.vectors.packed import Refused

PREFIX: Final = 12
BLOB: Final = 72


class TrueKeys:
    """The keys of tenants with softkeys in one region of a development system."""

    def __init__(self, directory: Path, region: str) -> None:
        self._region: Final = region
        self._store: Final = directory / "keystore" / region
        trust = Trust(directory)
        self.seal_key: Final = trust.seal_key(region).read_bytes()

    def root(self, tenant: str, uri: str) -> bytes:
        """The tenant root (L2)."""
        stored = self._newest(f"root.{tenant}")
        keys = decode(RootKeys, read_signed(stored).body)
        (version,) = keys.versions
        softkey = SoftkeyProvider(SoftkeyUri(uri.removeprefix("softkey:")), development=True)
        place = ctx(L1_CONTEXT, tenant, self._region, version.version)
        inner = softkey.unwrap(version.blob, place, version.mechanism).plaintext
        aad = decoder.l2_aad(tenant, self._region, version.version, version.seal_key_id)
        return decoder.unwrap(self.seal_key, bytes(inner), aad)

    def service(self, tenant: str, service: str, root: bytes) -> bytes:
        """The service key (L3)."""
        stored = self._newest(f"service.{tenant}.{service}")
        keys = decode(ServiceKeys, read_signed(stored).body)
        (version,) = keys.versions
        aad = decoder.l3_aad(tenant, self._region, service, version.version, version.l2_version)
        return decoder.unwrap(root, version.blob, aad)

    def _newest(self, key: str) -> bytes:
        return max((self._store / key).iterdir()).read_bytes()


def of_record(record: bytes, service_key: bytes) -> bytes:
    """The data key (L4) of a record."""
    parsed = decoder.parse_record(record)
    return decoder.unwrap(service_key, parsed.wrapped, _aad(parsed))


def batch_of(record: bytes) -> bytes:
    """The nonce prefix that the keys of one batch of the pool share."""
    return decoder.parse_record(record).wrapped[:PREFIX]


def unused(pid: int, records: list[bytes], service_key: bytes) -> list[bytes]:
    """The data keys of a Gateway's pool that no record has used, found by their wrapped forms."""
    parsed = [decoder.parse_record(record) for record in records]
    used = {one.wrapped for one in parsed}
    blobs: set[bytes] = set()
    for chunk in scan.memory(pid):
        for prefix in {one.wrapped[:PREFIX] for one in parsed}:
            at = chunk.find(prefix)
            while at >= 0:
                blobs.add(chunk[at : at + BLOB])
                at = chunk.find(prefix, at + 1)
    keys = []
    for blob in blobs - used:
        try:
            keys.append(decoder.unwrap(service_key, blob, _aad(parsed[0])))
        except Refused:
            continue  # a nonce alone, or the end of a chunk
    return keys


def _aad(record: decoder.Record) -> bytes:
    names = record.tenant, record.region, record.service, record.l3_version
    return decoder.l4_aad("record", *names)
