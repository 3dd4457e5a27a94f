"""A region's streams and buckets: created once at provisioning, and never by a component.

A component that finds one missing at its start waits for it. The loss of a wrapped key shreds
everything under it, so a missing bucket must never look like an empty one. A stream that does not
protect its messages is not used at all (see ``stream_protection``).

A bucket is a plain stream here, not one of ``create_key_value``: that one can be purged, and
accepts roll-ups, so that one message on one key could delete all others. None of that is needed:
keys are read from the stream's leader and replaced by compare-and-set.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any, Final

from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from nats import errors as nats_errors
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from kcm_runtime.audit.stream_size import AUDIT_BYTES, add_audit_stream, audit_config
from kcm_runtime.backoff import Backoff
from kcm_runtime.logs import fields
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.jetstream_errors import NO_STREAM, StreamMissing
from kcm_runtime.nats.server_version import LEAST
from kcm_runtime.nats.stream_protection import Unfit, differences, mended, unsafe

log = logging.getLogger(__name__)

API_LEVEL_MIN: Final = 2
"""JetStream API level with per-message expiry and atomic batches (server 2.12 and later); an older
server silently ignores both."""

COPIES_MIN: Final = 3
"""Copies of every stream in a clustered broker: with fewer, the loss of one disk loses keys."""

API_S: Final = 5.0
"""Seconds that the broker has for an answer about a stream's configuration."""

RETRY_S: Final = 0.5
"""Seconds before a missing stream is looked for again, the first time; doubles."""

RETRY_MAX_S: Final = 5.0
"""The most seconds between two attempts: after a restore, components start soon."""

KEYS: Final = subjects.bucket_stream(subjects.KEYS_BUCKET)
REGISTRY: Final = subjects.bucket_stream(subjects.REGISTRY_BUCKET)
RESULTS: Final = subjects.bucket_stream(subjects.RESULTS_BUCKET)

CORE_STREAMS: Final = (subjects.CONTROL_STREAM, subjects.AUDIT_STREAM, REGISTRY, RESULTS)
"""The streams that a Core reads or writes in the account REGION."""

VAULT_STREAMS: Final = (KEYS,)
"""The streams of the account VAULT, which only Cores read and write."""

GATEWAY_STREAMS: Final = (subjects.CONTROL_STREAM, REGISTRY)
"""The streams that a Gateway reads."""


async def check_server(connection: Connection) -> None:
    """Raise ``unavailable`` if JetStream does not answer, and ``Unfit`` if it is too old."""
    try:
        info = await connection.jetstream().account_info()
    except (nats_errors.Error, TimeoutError):
        raise KcmError(Code.UNAVAILABLE, f"no answer from JetStream{connection.over}") from None
    level = getattr(info.api, "level", None) or 0
    if level < API_LEVEL_MIN:
        raise Unfit(f"JetStream is too old (API level {level}): NATS server {LEAST} is needed")


async def check_streams(connection: Connection, region: str, names: Sequence[str]) -> None:
    """Compare the acknowledged configuration of streams with the wanted one.

    Raises ``Unfit`` if a stream does not protect its messages, ``StreamMissing``, or
    ``unavailable``.
    """
    copies = min(connection.nodes, COPIES_MIN)
    for config in _wanted(region, copies):
        if config.name in names:
            found = await acknowledged(connection, str(config.name))
            _judge(_sized(config, found), found, copies)


async def await_streams(connection: Connection, region: str, names: Sequence[str]) -> None:
    """Wait until the broker serves streams and all of these exist; raises ``Unfit``.

    After the restore of a region its components start without help.
    """
    backoff, told = Backoff(RETRY_S, RETRY_MAX_S), ""
    while True:
        try:
            await check_server(connection)
            await check_streams(connection, region, names)
        except (StreamMissing, KcmError) as error:
            if str(error) != told:
                told = str(error)
                named = fields(region=region, bus=connection.bus or None)
                log.error("waiting at the start: %s", told, extra=named)
        else:
            return
        await backoff.wait()


async def provision_region(
    region_bus: Connection,
    region: str,
    *,
    vault_bus: Connection,
    replicas: int = 1,
    audit_bytes: int | None = None,
) -> None:
    """Create the missing streams and buckets of a region, and protect the existing ones.

    The bucket of wrapped keys is created over ``vault_bus`` and all others over ``region_bus``.

    A stream that exists gets missing protection if that loses nothing; nothing else is changed.
    ``audit_bytes`` bounds the audit stream; ``kcm_runtime.audit.stream_size`` has the default.
    Raises ``Unfit`` if the broker acknowledges another configuration nevertheless, and
    ``unavailable``.
    """
    for one in (region_bus, vault_bus):
        await check_server(one)
    for config in _wanted(region, replicas):
        name = str(config.name)
        connection = vault_bus if name in VAULT_STREAMS else region_bus
        try:
            found = await acknowledged(connection, name)
        except StreamMissing:
            js = connection.jetstream()
            if name == subjects.AUDIT_STREAM:  # the last one: it takes what the others leave
                await add_audit_stream(js, region, replicas, audit_bytes)
            else:
                await js.add_stream(config)
            # If a damaged description is on the server's disk, creating the stream leaves it there,
            # and the next restart loses the stream again. An update rewrites it.
            await _update(connection, name, await acknowledged(connection, name))
        else:
            wanted = _sized(config, found).as_dict()
            if any(one.unsafe for one in differences(wanted, found)):
                log.warning(
                    "a stream lacks protection, which is added",
                    extra=fields(region=region, stream=name),
                )
                await _update(connection, name, mended(wanted, found))
        found = await acknowledged(connection, name)
        _judge(_sized(config, found), found, replicas)


async def acknowledged(connection: Connection, name: str) -> dict[str, Any]:
    """Return a stream's configuration, including fields that the client library does not know.

    Raises ``StreamMissing``, and ``unavailable``.
    """
    answer = await _api(connection, f"STREAM.INFO.{name}", b"")
    error = answer.get("error")
    if isinstance(error, dict) and error.get("err_code") == NO_STREAM:
        raise StreamMissing(name)
    config = answer.get("config")
    if not isinstance(config, dict):
        raise KcmError(Code.UNAVAILABLE, f"the broker did not return the configuration of {name}")
    return config


async def _update(connection: Connection, name: str, config: dict[str, Any]) -> None:
    """Request another configuration. The caller reads the result afterwards."""
    config.pop("metadata", None)  # the server's own
    await _api(connection, f"STREAM.UPDATE.{name}", json.dumps(config).encode())


async def _api(connection: Connection, verb: str, body: bytes) -> dict[str, Any]:
    raw = await connection.request(f"$JS.API.{verb}", body, API_S)
    try:
        answer = json.loads(raw)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise KcmError(Code.UNAVAILABLE, "unexpected form of the broker's answer")
    return answer


def _judge(config: StreamConfig, found: dict[str, Any], copies: int) -> None:
    """Log differences; raises ``Unfit`` if one takes away protection."""
    differing = differences(config.as_dict(), found, copies)
    if any(one.unsafe for one in differing):
        raise unsafe(differing)
    for one in differing:
        log.warning("not as requested, but as safe: %s", one)


def _wanted(region: str, replicas: int) -> list[StreamConfig]:
    return [
        _control(region, replicas),
        _bucket(subjects.KEYS_BUCKET, replicas),
        _bucket(subjects.REGISTRY_BUCKET, replicas),
        _bucket(subjects.RESULTS_BUCKET, replicas),
        audit_config(region, replicas, AUDIT_BYTES),
    ]


def _sized(config: StreamConfig, found: dict[str, Any]) -> StreamConfig:
    """Return the wanted audit stream with the bound of its creation: any bound is valid."""
    size = int(found.get("max_bytes") or 0)
    if config.name != subjects.AUDIT_STREAM or size <= 0:
        return config
    return config.evolve(max_bytes=size)


def _control(region: str, replicas: int) -> StreamConfig:
    # Lease entries expire. No delete markers: they would allow purge and roll-up, and the broker's
    # notice that an entry expired is not needed (see ``kcm_killswitch.model.incarnations``).
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
