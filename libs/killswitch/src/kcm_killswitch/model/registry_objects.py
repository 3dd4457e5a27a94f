"""The objects of the registry: what an entry is about, its key, and the order of its revisions."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import Final

from kcm_schemas import limits
from kcm_schemas.app import App
from kcm_schemas.codec import encode
from kcm_schemas.names import is_name
from kcm_schemas.registry import Link, Service, Tenant

RegistryObject = Tenant | Link | Service | App
"""What a registry entry is about: the content of the operator's statement."""

Key = tuple[str, ...]
"""Noun and names of an entry: ``("tenant", name)``, ``("service", tenant, name)``."""

_PARTS: Final = {"tenant": 2, "link": 2, "service": 3, "app": 2}
"""Number of parts of a key, by its noun."""


def key_of(obj: RegistryObject) -> Key:
    """The key under which an entry is stored."""
    match obj:
        case Tenant():
            return "tenant", obj.tenant
        case Link():
            return "link", obj.link
        case Service():
            return "service", obj.tenant, obj.service
        case App():
            return "app", obj.app


def is_key(key: Key) -> bool:
    """Whether an entry may be stored under this key."""
    return _PARTS.get(key[0]) == len(key) and all(map(is_name, key))


@lru_cache(maxsize=1 << 14)
def shard_of(name: str) -> int:
    """The shard of a tenant with its services, of a link, or of an application."""
    return sha256(name.encode()).digest()[0] % limits.REGISTRY_SHARDS


def rank_of(obj: RegistryObject) -> tuple[int, bytes]:
    """The order of the entries of one key: revision, and digest."""
    return obj.revision, object_digest(obj)


def object_digest(obj: RegistryObject) -> bytes:
    """SHA-256 of an entry's only encoding, which is the body of its statement."""
    return sha256(encode(obj)).digest()


def replaces(known: RegistryObject, new: RegistryObject) -> bool:
    """Whether ``new`` may replace ``known``.

    Its revision has to be higher, and a link's URI has to stay: stored keys are wrapped by its key.
    A tenant may name another link: the Core that stores that has rewrapped its tenant roots. The
    next revision of an application names the entry that it replaces, so that of two operators who
    change it at once one is refused. A higher revision replaces any entry: a region may have missed
    one. What is revoked stays revoked.
    """
    if key_of(known) != key_of(new):
        return False
    if isinstance(known, Link) and isinstance(new, Link) and known.uri != new.uri:
        return False
    if isinstance(known, App) and isinstance(new, App) and not _may_follow(known, new):
        return False
    return new.revision > known.revision


def _may_follow(known: App, new: App) -> bool:
    return follows(known, new) and (new.revoked or not known.revoked)


def follows(known: RegistryObject, new: App) -> bool:
    """Whether an application's entry names ``known``, or skips a revision."""
    return new.revision > known.revision + 1 or new.previous == object_digest(known)


REVISION_STEP_MAX: Final = 1 << 20
"""Maximum step from one revision to the next: else an attacker with a stolen key could sign the
highest possible revision, and no operator could ever sign a higher one."""
