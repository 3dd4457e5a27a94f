"""A region's streams and buckets: made once, by whoever sets the region up, never by a service.

A service that finds one missing at its start waits for it: losing a wrapped key is the same as
shredding everything under it, so a missing bucket must never look like an empty one. One that does
not protect what it stores is not used at all (see ``protection``).

A bucket is a stream here, and not what ``create_key_value`` makes: that one may be purged, and
takes roll-ups, so that one message on one key could wipe all the others. Nothing of that is needed:
keys are read from the stream's leader and replaced by compare-and-set.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from typing import Any, Final

from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from nats import errors as nats_errors
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from kcm_runtime.audit.stream_size import AUDIT_BYTES, add_audit_stream, audit_config
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.jetstream_errors import NO_STREAM
from kcm_runtime.nats.server_version import LEAST
from kcm_runtime.nats.stream_protection import Unfit, differences, mended, unsafe
from kcm_runtime.nats.streams import StreamMissing

log = logging.getLogger(__name__)

API_LEVEL_MIN: Final = 2
"""JetStream API level that has per-message expiry and atomic batches (server 2.12 and later); an
older server silently ignores both."""

COPIES_MIN: Final = 3
"""Copies of every stream where the broker is a cluster: with fewer, one lost disk loses keys."""

API_S: Final = 5.0
"""Seconds that the broker gets to say how a stream is configured."""

RETRY_S: Final = 0.5
"""Seconds before a stream that is missing is looked for again; doubles."""

RETRY_MAX_S: Final = 5.0
"""Seconds between two looks at most: whoever restored a stream does not wait long."""

KEYS: Final = subjects.bucket_stream(subjects.KEYS_BUCKET)
REGISTRY: Final = subjects.bucket_stream(subjects.REGISTRY_BUCKET)
RESULTS: Final = subjects.bucket_stream(subjects.RESULTS_BUCKET)

CORE_STREAMS: Final = (subjects.CONTROL_STREAM, subjects.AUDIT_STREAM, KEYS, REGISTRY, RESULTS)
"""What a Core reads or writes."""

GATEWAY_STREAMS: Final = (subjects.CONTROL_STREAM, REGISTRY)
"""What a Gateway reads."""


async def check_server(connection: Connection) -> None:
    """Raise ``unavailable`` when JetStream does not answer, and ``Unfit`` when it is too old."""
    try:
        info = await connection.jetstream().account_info()
    except (nats_errors.Error, TimeoutError):
        raise KcmError(Code.UNAVAILABLE, "JetStream does not answer") from None
    level = getattr(info.api, "level", None) or 0
    if level < API_LEVEL_MIN:
        raise Unfit(f"JetStream is too old (API level {level}): NATS server {LEAST} is needed")


async def check_streams(connection: Connection, region: str, names: Sequence[str]) -> None:
    """Compare what the broker acknowledges with what is needed.

    Raises ``Unfit`` when a stream does not protect what it stores, ``StreamMissing``, or
    ``unavailable``.
    """
    copies = min(connection.nodes, COPIES_MIN)
    for config in _wanted(region, copies):
        if config.name in names:
            found = await acknowledged(connection, str(config.name))
            _judge(_sized(config, found), found, copies)


async def await_streams(connection: Connection, region: str, names: Sequence[str]) -> None:
    """Wait until the broker serves streams and all of these are there; raises ``Unfit``.

    Whoever restores a region needs its services to come up by themselves.
    """
    wait, told = RETRY_S, ""
    while True:
        try:
            await check_server(connection)
            await check_streams(connection, region, names)
        except (StreamMissing, KcmError) as error:
            if str(error) != told:
                told = str(error)
                log.error("waiting at the start: %s", told)
        else:
            return
        await asyncio.sleep(wait)
        wait = min(wait * 2, RETRY_MAX_S)


async def provision_region(
    connection: Connection, region: str, *, replicas: int = 1, audit_bytes: int | None = None
) -> None:
    """Make what is missing of a region's streams and buckets, and protect what exists.

    Of a stream that exists, protection that it lacks is added where that loses nothing; nothing
    else is changed. ``audit_bytes`` bounds the audit stream; ``kcm_runtime.audit.stream_size`` says
    what is taken without. Raises ``Unfit`` when the broker acknowledges another configuration all
    the same, and ``unavailable``.
    """
    await check_server(connection)
    js = connection.jetstream()
    for config in _wanted(region, replicas):
        name = str(config.name)
        try:
            found = await acknowledged(connection, name)
        except StreamMissing:
            if name == subjects.AUDIT_STREAM:  # the last one: it may take what the others leave
                await add_audit_stream(js, region, replicas, audit_bytes)
            else:
                await js.add_stream(config)
            # Where a damaged description lies on the server's disk, making the stream leaves it
            # there, and the next restart forgets the stream again. A change writes it anew.
            await _update(connection, name, await acknowledged(connection, name))
        else:
            wanted = _sized(config, found).as_dict()
            if any(one.unsafe for one in differences(wanted, found)):
                log.warning("%s lacks protection, which is added", name)
                await _update(connection, name, mended(wanted, found))
        found = await acknowledged(connection, name)
        _judge(_sized(config, found), found, replicas)


async def acknowledged(connection: Connection, name: str) -> dict[str, Any]:
    """A stream's configuration as the broker says it, fields unknown to the client library too.

    Raises ``StreamMissing``, and ``unavailable``.
    """
    answer = await _api(connection, f"STREAM.INFO.{name}", b"")
    error = answer.get("error")
    if isinstance(error, dict) and error.get("err_code") == NO_STREAM:
        raise StreamMissing(name)
    config = answer.get("config")
    if not isinstance(config, dict):
        raise KcmError(Code.UNAVAILABLE, f"the broker does not say how {name} is configured")
    return config


async def _update(connection: Connection, name: str, config: dict[str, Any]) -> None:
    """Ask for another configuration. What came of it is seen by who looks afterwards."""
    config.pop("metadata", None)  # the server's own
    await _api(connection, f"STREAM.UPDATE.{name}", json.dumps(config).encode())


async def _api(connection: Connection, verb: str, body: bytes) -> dict[str, Any]:
    raw = await connection.request(f"$JS.API.{verb}", body, API_S)
    try:
        answer = json.loads(raw)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise KcmError(Code.UNAVAILABLE, "the broker's answer has another form")
    return answer


def _judge(config: StreamConfig, found: dict[str, Any], copies: int) -> None:
    """Tell what differs; raises ``Unfit`` when it takes away protection."""
    differing = differences(config.as_dict(), found, copies)
    if any(one.unsafe for one in differing):
        raise unsafe(differing)
    for one in differing:
        log.warning("not as it was asked for, though as safe: %s", one)


def _wanted(region: str, replicas: int) -> list[StreamConfig]:
    return [
        _control(region, replicas),
        _bucket(subjects.KEYS_BUCKET, replicas),
        _bucket(subjects.REGISTRY_BUCKET, replicas),
        _bucket(subjects.RESULTS_BUCKET, replicas),
        audit_config(region, replicas, AUDIT_BYTES),
    ]


def _sized(config: StreamConfig, found: dict[str, Any]) -> StreamConfig:
    """What is wanted of the audit stream has the size that it was made with: any bound is one."""
    size = int(found.get("max_bytes") or 0)
    if config.name != subjects.AUDIT_STREAM or size <= 0:
        return config
    return config.evolve(max_bytes=size)


def _control(region: str, replicas: int) -> StreamConfig:
    # Lease entries expire. No delete markers: they would allow purge and roll-up, and nobody needs
    # the broker's word that a record expired (see ``kcm_killswitch.model.incarnations``).
    return StreamConfig(
        name=subjects.CONTROL_STREAM,
        subjects=[subjects.control_all(region)],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        num_replicas=replicas,
        max_msgs_per_subject=1,
        discard=DiscardPolicy.OLD,
        deny_delete=True,
        deny_purge=True,
        allow_direct=False,
        allow_msg_ttl=True,
    )


def _bucket(bucket: str, replicas: int) -> StreamConfig:
    return StreamConfig(
        name=subjects.bucket_stream(bucket),
        subjects=[subjects.bucket_all(bucket)],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        num_replicas=replicas,
        max_msgs_per_subject=1,
        discard=DiscardPolicy.NEW,
        deny_delete=True,
        deny_purge=True,
        allow_direct=False,
    )
