"""What a Core knows of its region's registry, and the order to adopt it."""

from __future__ import annotations

from kcm_schemas.codec import Message
from kcm_schemas.names import U32, U64, Digest, Name, Text


class RegistryView(Message):
    """What one Core knows of its region's registry, and whether it has a baseline of it.

    ``highest`` is the highest revision of any registry entry. ``digest`` is over all entries: Cores
    that know the same entries have the same digest. ``waits`` says why a Core without a baseline
    does not serve yet; otherwise it is empty.
    """

    core: Name
    baseline: bool
    tenants: U32
    links: U32
    services: U32
    apps: U32
    highest: U64
    digest: Digest
    waits: Text


class AdoptOrder(Message):
    """An operator's statement that the registry with this digest is the region's."""

    digest: Digest
