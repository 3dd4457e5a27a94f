"""Digests over the entries of a registry, in shards: a new entry digests its own shard only."""

from __future__ import annotations

from hashlib import sha256

from kcm_schemas import limits

Key = tuple[str, ...]


class ShardDigests:
    """The digest of each shard, over the digests of its entries in the order of their keys."""

    def __init__(self) -> None:
        self._entries: list[dict[Key, bytes]] = [{} for _ in range(limits.REGISTRY_SHARDS)]
        self._digests: list[bytes | None] = [None] * limits.REGISTRY_SHARDS

    def put(self, shard: int, key: Key, digest: bytes) -> None:
        """Set the digest of an entry."""
        self._entries[shard][key] = digest
        self._digests[shard] = None

    def remove(self, shard: int, key: Key) -> None:
        """Forget an entry."""
        del self._entries[shard][key]
        self._digests[shard] = None

    @property
    def all(self) -> list[bytes]:
        """A digest of 16 bytes for each shard: equal in two replicas that know the same."""
        for at, known in enumerate(self._digests):
            if known is None:
                entries = self._entries[at]
                whole = sha256(b"".join(entries[key] for key in sorted(entries)))
                self._digests[at] = whole.digest()[: limits.ID_SIZE]
        return [one for one in self._digests if one is not None]
