"""Audit events: chained by their emitter, signed in batches.

An emitter counts its events from 1 in every incarnation. Each event's hash is
``SHA-256(ctx("kcm/v1/audit-chain", previous hash, event))``, with 32 zero bytes before the first,
so that a changed, removed or inserted event is detected.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from kcm_schemas import limits
from kcm_schemas.codec import Message
from kcm_schemas.codes import CodeField
from kcm_schemas.names import U64, Digest, Id, Name, Text
from kcm_schemas.roster import Role

GENESIS: Final = bytes(32)
"""The hash before the first event of an incarnation."""


class EventType(StrEnum):
    """The types of events that components emit; a requester cannot choose one.

    A reader keeps events of unknown types with the same form: a later version may have more.
    """

    INSTANCE_START = "instance.start"
    INSTANCE_STOP = "instance.stop"
    INSTANCE_ALIVE = "instance.alive"
    INSTANCE_RETIRED = "instance.retired"
    DATA_ENCRYPT = "data.encrypt"
    DATA_DECRYPT = "data.decrypt"
    DATA_REFUSED = "data.refused"
    KEYS_WRAP = "keys.wrap"
    KEYS_UNWRAP = "keys.unwrap"
    ROOT_CREATE = "root.create"
    ROOT_OPEN = "root.open"
    ROOT_RELINK = "root.relink"
    ROOT_UNLOAD = "root.unload"
    KEY_FILLING = "key.filling"
    KEY_ROOM = "key.room"
    KEY_CROWDED = "key.crowded"
    KEY_REFUSED = "key.refused"
    KEY_INCIDENT = "key.incident"
    KEY_SETTLED = "key.settled"
    SERVICE_CREATE = "service.create"
    TENANT_CREATE = "tenant.create"
    LINK_PUT = "link.put"
    APP_PUT = "app.put"
    STORE_HEALED = "store.healed"
    STORE_FULL = "store.full"
    STORE_SILENT = "store.silent"
    STORE_BACK = "store.back"
    HOLD_PLACED = "hold.placed"
    HOLD_PURGED = "hold.purged"
    HOLD_RELEASED = "hold.released"
    HOLD_DURABLE = "hold.durable"
    HOLD_UNKEPT = "hold.unkept"
    HOLD_KEPT = "hold.kept"
    HOLD_LIFTED = "hold.lifted"
    HOLD_COMPACTED = "hold.compacted"
    STREAM_CLEARED = "stream.cleared"
    STREAM_REPAIRED = "stream.repaired"
    STREAM_WEAK = "stream.weak"
    REGISTRY_BEGUN = "registry.begun"
    REGISTRY_FORGOTTEN = "registry.forgotten"
    REGISTRY_JOINED = "registry.joined"
    REGISTRY_ADOPTED = "registry.adopted"
    REGISTRY_REPAIRED = "registry.repaired"
    REGISTRY_LOST = "registry.lost"
    ROSTER_TAKEN = "roster.taken"
    ROSTER_BEHIND = "roster.behind"
    TRUST_REFUSED = "trust.refused"
    ADMIN_TENANT_PUT = "admin.tenant-put"
    ADMIN_TENANT_LIST = "admin.tenant-list"
    ADMIN_TENANT_FIND = "admin.tenant-find"
    ADMIN_TENANT_SHOW = "admin.tenant-show"
    ADMIN_LINK_PUT = "admin.link-put"
    ADMIN_LINK_LIST = "admin.link-list"
    ADMIN_SERVICE_PUT = "admin.service-put"
    ADMIN_SERVICE_LIST = "admin.service-list"
    ADMIN_APP_PUT = "admin.app-put"
    ADMIN_APP_LIST = "admin.app-list"
    ADMIN_APP_SHOW = "admin.app-show"
    ADMIN_HOLD_PUT = "admin.hold-put"
    ADMIN_HOLD_STATUS = "admin.hold-status"
    ADMIN_HOLD_SHOW = "admin.hold-show"
    ADMIN_HOLD_LIST = "admin.hold-list"
    ADMIN_HOLD_PREVIEW = "admin.hold-preview"
    ADMIN_HOLD_EXPORT = "admin.hold-export"
    ADMIN_ROSTER_SHOW = "admin.roster-show"
    ADMIN_ROSTER_PUT = "admin.roster-put"
    ADMIN_ROSTER_ENDORSEMENTS = "admin.roster-endorsements"
    ADMIN_ROSTER_SIGNED = "admin.roster-signed"
    ADMIN_ROSTER_LISTED = "admin.roster-listed"
    ADMIN_REGISTRY_SHOW = "admin.registry-show"
    ADMIN_REGISTRY_ADOPT = "admin.registry-adopt"
    ADMIN_KEY_STATUS = "admin.key-status"
    ADMIN_UNKNOWN = "admin.unknown"
    AUDIT_READ = "audit.read"
    AUDIT_DROPPED = "audit.dropped"
    AUDIT_FILLING = "audit.filling"
    AUDIT_TRIMMED = "audit.trimmed"
    AUDIT_DISPUTED = "audit.disputed"
    AUDIT_JOURNAL_LOST = "audit.journal-lost"


Target = Annotated[str, Field(max_length=limits.TARGET_MAX)]
"""The object of an event: a noun, and one or two names."""


class AuditEvent(Message):
    """One event: never a key, never a payload. ``count`` is in records or keys.

    ``actor`` is the requester, or ``None`` if the emitter acted by itself. ``target`` is the object
    of the event, for example ``tenant acme``, ``link acme-key`` or ``region eu``; it is empty if
    other fields name it. ``hold`` is the id of the hold that the event is about. ``detail`` has a
    reason or a short text.
    """

    type: Annotated[str, Field(pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+){1,3}\z", max_length=64)]
    time_ms: U64
    actor: Name | None
    tenant: Name | None
    service: Name | None
    target: Target
    hold: Id | None
    code: CodeField
    count: U64
    failed: U64
    detail: Text


class AuditBatch(Message):
    """Body of a signed ``audit`` statement: consecutive events of one incarnation, each encoded."""

    emitter: Name
    incarnation: Id
    role: Annotated[Role, Field(strict=False)]
    region: Name
    first: U64
    previous: Digest
    events: Annotated[
        list[Annotated[bytes, Field(max_length=limits.AUDIT_EVENT_MAX)]],
        Field(min_length=1, max_length=limits.AUDIT_EVENTS_MAX),
    ]
