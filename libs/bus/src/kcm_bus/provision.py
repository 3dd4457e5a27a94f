"""A region's streams and buckets: made once, by whoever sets the region up, never by a service.

A service that finds one missing stops: losing a wrapped key is the same as shredding everything
under it, so a missing bucket must never look like an empty one.
"""

from __future__ import annotations

from typing import Final

from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from nats import errors as nats_errors
from nats.js.api import DiscardPolicy, KeyValueConfig, StorageType, StreamConfig

from kcm_bus.audit_room import add_audit_stream
from kcm_bus.connection import Connection

API_LEVEL_MIN: Final = 2
"""JetStream API level that has per-message expiry and atomic batches (server 2.12 and later); an
older server silently ignores both."""

LEASE_TTL_MARKER_S: Final = 60.0
"""Seconds for which the end of an expired lease record stays visible."""


async def check_server(connection: Connection) -> None:
    """Raise ``unavailable`` with the remedy when the broker is too old."""
    try:
        info = await connection.jetstream().account_info()
    except (nats_errors.Error, TimeoutError):
        raise KcmError(Code.UNAVAILABLE, "JetStream does not answer") from None
    level = getattr(info.api, "level", None) or 0
    if level < API_LEVEL_MIN:
        raise KcmError(
            Code.UNAVAILABLE, "the NATS server is too old: 2.12 or later is needed (2.15 tested)"
        )


async def provision_region(
    connection: Connection, region: str, *, replicas: int = 1, audit_bytes: int | None = None
) -> None:
    """Make what is missing of a region's streams and buckets; leaves what exists as it is.

    ``audit_bytes`` bounds the audit stream; see ``kcm_bus.audit_room`` for what is taken without.
    """
    await check_server(connection)
    js = connection.jetstream()
    existing = {info.config.name for info in await js.streams_info()}
    control = _control(region, replicas)
    if control.name not in existing:
        await js.add_stream(control)
    for bucket in (subjects.KEYS_BUCKET, subjects.REGISTRY_BUCKET):
        if f"KV_{bucket}" not in existing:
            await js.create_key_value(
                KeyValueConfig(bucket=bucket, history=1, replicas=replicas, direct=False)
            )

    # Last of all: what it may take is what the others leave.
    if subjects.AUDIT_STREAM not in existing:
        await add_audit_stream(js, region, replicas, audit_bytes)


def _control(region: str, replicas: int) -> StreamConfig:
    return StreamConfig(
        name=subjects.CONTROL_STREAM,
        subjects=[subjects.control_all(region)],
        storage=StorageType.FILE,
        num_replicas=replicas,
        max_msgs_per_subject=1,
        discard=DiscardPolicy.OLD,
        deny_delete=True,
        deny_purge=True,
        allow_direct=False,
        allow_msg_ttl=True,
        subject_delete_marker_ttl=LEASE_TTL_MARKER_S,
    )
