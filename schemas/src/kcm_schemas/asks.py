"""Asks: what an application states to a Core about the data keys that a Gateway unwraps for it.

An application has a session with the Core, too, which Gateways carry. For each request to decrypt,
it makes a tag that this Core alone can verify:

    tag = HMAC-SHA256(the session's ask key, ctx("kcm/v1/ask", session_id, region, gateway, tenant,
          service, deadline, l3_version, SHA-256(the wrapped keys)))

So a Gateway unwraps only what an application asked for through this Gateway, until the deadline.
Application, Gateway and Core compute the same lists of keys: ``record.key_names`` names the keys of
a request, and ``split`` divides them into the lists that one request to a Core can have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Annotated, Final

from pydantic import Field

from kcm_schemas import labels, limits
from kcm_schemas.codec import Message
from kcm_schemas.labels import ctx
from kcm_schemas.names import U64, Id, Name

TAG_SIZE: Final = 32
"""Bytes of a tag."""

_VERSION: Final = slice(0, 4)
_PREFIX: Final = slice(4, 4 + limits.PREFIX_SIZE)
_HEAD: Final = slice(0, 4 + limits.PREFIX_SIZE)


class Ask(Message):
    """An application's tags for one Core: one for each list of ``split``, in its order.

    The tags end at ``deadline_ms`` (Unix milliseconds).
    """

    core: Name
    session_id: Id
    deadline_ms: U64
    tags: Annotated[bytes, Field(min_length=TAG_SIZE, max_length=limits.KEYS_MAX * TAG_SIZE)]

    def tag(self, number: int) -> bytes:
        """Return the tag of a list, by its number from 0; empty if there is none."""
        return self.tags[number * TAG_SIZE : (number + 1) * TAG_SIZE]


class Asked(Message):
    """``count`` consecutive keys of an unwrap, for which an application asks until the deadline."""

    app: Name
    session_id: Id
    deadline_ms: U64
    count: Annotated[int, Field(ge=1, le=limits.KEYS_MAX)]
    tag: Annotated[bytes, Field(min_length=TAG_SIZE, max_length=TAG_SIZE)]


class AskedKeys(Message):
    """Who asks for the keys of an unwrap, in the order of the keys. It follows the wrapped keys."""

    asked: Annotated[list[Asked], Field(min_length=1, max_length=limits.KEYS_MAX)]


def to_tag(
    session_id: bytes,
    region: str,
    gateway: str,
    tenant: str,
    service: str,
    deadline_ms: int,
    l3_version: int,
    keys: bytes,
) -> bytes:
    """Return the bytes that a tag covers; ``keys`` is the ``keys_digest`` of a list."""
    names = (region, gateway, tenant, service)
    return ctx(labels.ASK, session_id, *names, deadline_ms, l3_version, keys)


def keys_digest(wrapped: bytes | memoryview) -> bytes:
    """Return the SHA-256 of the wrapped keys of a list, 72 bytes each."""
    return sha256(wrapped).digest()


def version_of(name: bytes) -> int:
    """Return the L3 version of a key's name (76 bytes: version, wrapped key)."""
    return int.from_bytes(name[_VERSION], "big")


def split(names: Sequence[bytes], chosen: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield the chosen positions of ``names``, as lists that a Core takes.

    A list is for one L3 version, and for at most ``KEYS_MAX`` keys with ``PREFIXES_MAX`` nonce
    prefixes. A name has 76 bytes: L3 version and wrapped key.
    """
    heads = {names[position][_HEAD] for position in chosen}
    one_version = len({head[_VERSION] for head in heads}) == 1
    if one_version and len(heads) <= limits.PREFIXES_MAX and len(chosen) <= limits.KEYS_MAX:
        yield chosen  # the usual case
        return
    versions: dict[bytes, list[int]] = {}
    for position in chosen:
        versions.setdefault(names[position][_VERSION], []).append(position)
    for positions in versions.values():
        yield from _parts(names, positions)


def _parts(names: Sequence[bytes], positions: list[int]) -> Iterator[list[int]]:
    """Split where one key more would exceed the number of keys or of nonce prefixes."""
    start = 0
    prefixes: set[bytes] = set()
    for at, position in enumerate(positions):
        prefixes.add(names[position][_PREFIX])
        if len(prefixes) > limits.PREFIXES_MAX or at - start == limits.KEYS_MAX:
            yield positions[start:at]
            start, prefixes = at, {names[position][_PREFIX]}
    yield positions[start:]
