"""The two stores of a region's registry: the broker's bucket, and the second store on disk.

Entries are read and written here as they are stored. Nothing is verified.
"""

from __future__ import annotations

import asyncio
from typing import Final

from kcm_killswitch.model.registry_objects import Key
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.ports import Entry
from kcm_runtime.nats.streams import ever_had, keep, last
from kcm_schemas import subjects

from kcm_core.keys.file_store import FileKeyStore, Stored

PREFIX: Final = "registry."
"""Prefix of the registry's keys in the second store, which also has the wrapped keys."""

_STREAM: Final = subjects.bucket_stream(subjects.REGISTRY_BUCKET)


class RegistryStores:
    """Entries of both stores, by the key of their record."""

    def __init__(self, connection: Connection, second_store: FileKeyStore) -> None:
        self._connection: Final = connection
        self._second_store: Final = second_store

    async def stored(self, key: Key) -> Entry | None:
        """The bucket's entry, or ``None``; raises ``unavailable``."""
        return await last(self._connection, _STREAM, subject_of(key))

    async def put(self, key: Key, entry: bytes, expected: int) -> None:
        """Store an entry in the bucket; it replaces the one with the sequence ``expected``.

        Raises ``conflict`` if the bucket has another one, and ``unavailable``.
        """
        await keep(self._connection, _STREAM, subject_of(key), entry, expected=expected)

    async def messages(self) -> int:
        """The number of messages in the bucket; raises any error of the client library."""
        info = await self._connection.jetstream().stream_info(_STREAM)
        return info.state.messages or 0

    async def ever_had(self) -> bool:
        """Whether the bucket ever had a message, as far as it shows; raises ``unavailable``."""
        return await ever_had(self._connection, _STREAM)

    async def heads(self) -> dict[Key, int]:
        """The highest revision of every entry in the second store; raises ``unavailable``.

        A name that is no key of an entry is included.
        """
        heads = await asyncio.to_thread(self._second_store.heads, PREFIX)
        return {
            tuple(name.removeprefix(PREFIX).split(".")): revision
            for name, revision in heads.items()
        }

    async def copy(self, key: Key) -> Stored | None:
        """The second store's newest entry of a key, or ``None``; raises ``unavailable``."""
        return await asyncio.to_thread(self._second_store.latest, _name(key))

    async def create_copy(self, key: Key, revision: int, entry: bytes) -> None:
        """Create a revision in the second store; on disk when this returns.

        Raises ``conflict`` if the revision exists, and ``unavailable``.
        """
        await asyncio.to_thread(self._second_store.create, _name(key), revision, entry)

    async def replace_copy(self, key: Key, revision: int, entry: bytes, damaged: bytes) -> bool:
        """Replace a ``damaged`` revision in the second store; ``False`` if it is not there.

        On disk when this returns; raises ``unavailable``.
        """
        return await asyncio.to_thread(
            self._second_store.replace, _name(key), revision, entry, damaged
        )


def subject_of(key: Key) -> str:
    """The subject of an entry in the bucket."""
    return subjects.bucket_subject(subjects.REGISTRY_BUCKET, *key)


def _name(key: Key) -> str:
    return PREFIX + ".".join(key)
