"""Audit events: chained by their emitter, signed in batches.

An emitter counts its events from 1 in every boot. Each event's hash is
``SHA-256(ctx("kcm/v1/audit-chain", previous hash, event))`` with 32 zero bytes before the first, so
an event that was changed, dropped or put in between shows.
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
"""The hash before the first event of a boot."""


class EventType(StrEnum):
    """What services record. An event may bear another type of the same form: readers keep it."""

    INSTANCE_START = "instance.start"
    INSTANCE_STOP = "instance.stop"
    INSTANCE_ALIVE = "instance.alive"
    DATA_ENCRYPT = "data.encrypt"
    DATA_DECRYPT = "data.decrypt"
    KEYS_WRAP = "keys.wrap"
    KEYS_UNWRAP = "keys.unwrap"
    ROOT_CREATE = "root.create"
    ROOT_OPEN = "root.open"
    ROOT_SEAL = "root.seal"
    SERVICE_CREATE = "service.create"
    TENANT_CREATE = "tenant.create"
    LINK_PUT = "link.put"
    HOLD_PLACED = "hold.placed"
    HOLD_PURGED = "hold.purged"
    HOLD_DURABLE = "hold.durable"
    HOLD_LIFTED = "hold.lifted"
    REGISTRY_BEGUN = "registry.begun"
    REGISTRY_FORGOTTEN = "registry.forgotten"
    REGISTRY_JOINED = "registry.joined"
    REGISTRY_ADOPTED = "registry.adopted"
    STORE_FULL = "store.full"
    STORE_SILENT = "store.silent"
    STORE_BACK = "store.back"
    STREAM_REPAIRED = "stream.repaired"
    STREAM_WEAK = "stream.weak"
    TRUST_REFUSED = "trust.refused"
    AUDIT_READ = "audit.read"
    AUDIT_DROPPED = "audit.dropped"
    AUDIT_FILLING = "audit.filling"
    AUDIT_TRIMMED = "audit.trimmed"
    AUDIT_DISPUTED = "audit.disputed"
    AUDIT_JOURNAL_LOST = "audit.journal-lost"


class AuditEvent(Message):
    """What happened: never a key, never a payload. ``count`` is in records or keys."""

    type: Annotated[str, Field(pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+){1,3}\z", max_length=64)]
    time_ms: U64
    actor: Name | None
    tenant: Name | None
    service: Name | None
    code: CodeField
    count: U64
    failed: U64
    detail: Text


class AuditBatch(Message):
    """Body of a signed ``audit`` statement: consecutive events of one boot, each encoded."""

    emitter: Name
    boot: Id
    role: Annotated[Role, Field(strict=False)]
    region: Name
    first: U64
    previous: Digest
    events: Annotated[
        list[Annotated[bytes, Field(max_length=limits.AUDIT_EVENT_MAX)]],
        Field(min_length=1, max_length=limits.AUDIT_EVENTS_MAX),
    ]
