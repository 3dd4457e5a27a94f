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


async def provision_region(connection: Connection, region: str, *, replicas: int = 1) -> None:
    """Make what is missing of a region's streams and buckets; leaves what exists as it is."""
    await check_server(connection)
    js = connection.jetstream()
    existing = {info.config.name for info in await js.streams_info()}
    for config in (_control(region, replicas), _audit(region, replicas)):
        if config.name not in existing:
            await js.add_stream(config)
    for bucket in (subjects.KEYS_BUCKET, subjects.REGISTRY_BUCKET):
        if f"KV_{bucket}" not in existing:
            await js.create_key_value(
                KeyValueConfig(bucket=bucket, history=1, replicas=replicas, direct=False)
            )
    for info in await js.streams_info():
        if info.config.name not in existing:
            # Where a damaged description lies on the server's disk, making the stream leaves it
            # there, and the next restart forgets the stream again. A change writes it anew.
            await js.update_stream(info.config)


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


def _audit(region: str, replicas: int) -> StreamConfig:
    return StreamConfig(
        name=subjects.AUDIT_STREAM,
        subjects=[subjects.audit_all(region)],
        storage=StorageType.FILE,
        num_replicas=replicas,
        deny_delete=True,
        deny_purge=True,
        allow_direct=False,
    )
