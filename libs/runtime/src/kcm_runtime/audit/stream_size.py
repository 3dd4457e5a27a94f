"""The size of the audit stream at provisioning, and the space that it leaves to other streams.

Theory of operation. All streams of a region share the broker's store, those of the account VAULT
too. The audit stream grows with traffic, the others with customers and kills. If it could fill the
store, no kill would be durable any more. So it has its own bound, at which it rejects new messages.
A broker reserves a stream's bound, and creates no stream whose bound does not fit. A temporary
stream that needs the bound *and* the reserve for the other streams shows whether both fit. The
broker compares it with the room of the whole server, so that it also leaves room for the wrapped
keys in the other account.
"""

from __future__ import annotations

import logging
from typing import Final

from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from nats.js import JetStreamContext
from nats.js import errors as js_errors
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from kcm_runtime.logs import fields
from kcm_runtime.nats.jetstream_errors import is_full

log = logging.getLogger(__name__)

AUDIT_BYTES: Final = 8 * 1024**3
"""Bytes of the audit stream if nothing else is configured: 20 days at 33 calls a second."""

AUDIT_BYTES_MIN: Final = 64 * 1024**2
"""The smallest default size in bytes: half an hour of a busy region."""

RESERVE_BYTES: Final = 512 * 1024**2
"""Bytes reserved for the control stream, keys and registry: over 400,000 holds of 1 KiB."""

RESERVE_SHARE: Final = 0.25
"""Share of a small store that is reserved for them, if ``RESERVE_BYTES`` would leave nothing."""

NO_PEERS: Final = 10005
"""JetStream's error code for too few servers that can take a stream; its text says why."""

_PROBE: Final = "KCM_ROOM"


def audit_config(region: str, replicas: int, max_bytes: int) -> StreamConfig:
    """Return the configuration of the audit stream: bounded, rejecting new messages when full.

    It has no ``max_age``: age does not prove that an Auditor has a message. It is the only stream
    that may be purged, which Cores do after a signed trim; single messages cannot be deleted.
    """
    return StreamConfig(
        name=subjects.AUDIT_STREAM,
        subjects=[subjects.audit_all(region)],
        storage=StorageType.FILE,
        retention=RetentionPolicy.LIMITS,
        num_replicas=replicas,
        max_bytes=max_bytes,
        discard=DiscardPolicy.NEW,
        deny_delete=True,
        deny_purge=False,
        allow_direct=False,
    )


async def add_audit_stream(
    js: JetStreamContext, region: str, replicas: int, wanted: int | None
) -> None:
    """Create the audit stream with the wanted size, or with as much of ``AUDIT_BYTES`` as fits.

    Raises ``unavailable`` if the store has no room for it and the reserve for other streams.
    """
    size = wanted if wanted is not None else AUDIT_BYTES
    while not await _fits(js, size + reserve(size), replicas):
        if wanted is not None or size // 2 < AUDIT_BYTES_MIN:
            raise KcmError(
                Code.UNAVAILABLE,
                f"the broker has no room for an audit stream of {size} bytes and "
                f"{reserve(size)} for the other streams: give JetStream more (max_file_store, or "
                "the account's limit), or provision with less (audit_bytes)",
            )
        size //= 2
    await js.add_stream(audit_config(region, replicas, size))
    log.info("the audit stream has room for %d bytes", size, extra=fields(region=region))


def reserve(size: int) -> int:
    """Return the bytes reserved for other streams beside an audit stream of ``size`` bytes."""
    return min(RESERVE_BYTES, max(int(size * RESERVE_SHARE / (1 - RESERVE_SHARE)), 1))


async def _fits(js: JetStreamContext, size: int, replicas: int) -> bool:
    """Whether the broker can reserve ``size`` bytes now: a temporary stream shows it."""
    probe = StreamConfig(
        name=_PROBE,
        subjects=[f"{subjects.PREFIX}.{_PROBE}"],
        storage=StorageType.FILE,
        num_replicas=replicas,
        max_bytes=size,
    )
    try:
        await js.add_stream(probe)
    except js_errors.APIError as error:
        crowded = error.err_code == NO_PEERS and "storage" in (error.description or "")
        if is_full(error) or crowded:
            return False
        raise
    await js.delete_stream(_PROBE)
    return True
