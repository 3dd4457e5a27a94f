"""How much room the audit stream gets when a region is provisioned, and what it leaves.

Theory. All streams of a region share the broker's store. The audit stream grows with traffic, the
others with customers and kills; if it could fill the store, no kill would be durable any more. So
it has a bound of its own and refuses new messages there. A broker reserves a stream's bound, and
makes no stream whose bound it has no room for: whether the bound *and* the reserve for the others
fit is asked by making a stream for a moment that needs both.
"""

from __future__ import annotations

import logging
from typing import Final

from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from nats.js import JetStreamContext
from nats.js import errors as js_errors
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from kcm_runtime.nats.jetstream_errors import is_full

log = logging.getLogger(__name__)

AUDIT_BYTES: Final = 8 * 1024**3
"""Bytes of the audit stream where nothing else is configured: 20 days at 33 calls a second."""

AUDIT_BYTES_MIN: Final = 64 * 1024**2
"""Bytes below which no default goes: half an hour of a busy region."""

RESERVE_BYTES: Final = 512 * 1024**2
"""Bytes that stay for the control stream, keys and registry: 400,000 holds of 1 KiB and more."""

RESERVE_SHARE: Final = 0.25
"""Share of a small store that stays for them, where ``RESERVE_BYTES`` would leave nothing."""

NO_PEERS: Final = 10005
"""JetStream's error code of a cluster in which too few servers can take a stream; it says why."""

_PROBE: Final = "KCM_ROOM"


def audit_config(region: str, replicas: int, max_bytes: int) -> StreamConfig:
    """The audit stream: bounded, refusing what is new when it is full.

    It has no ``max_age``: age does not prove that an Auditor has a message. Of all streams it alone
    may be purged, which Cores do behind a signed trim; single messages cannot be deleted.
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
    """Make the audit stream with the room that is wanted, or with what fits of ``AUDIT_BYTES``.

    Raises ``unavailable`` when the store has not so much room beside the reserve for the others.
    """
    size = wanted if wanted is not None else AUDIT_BYTES
    while not await _fits(js, size + reserve(size), replicas):
        if wanted is not None or size // 2 < AUDIT_BYTES_MIN:
            raise KcmError(
                Code.UNAVAILABLE,
                f"the broker has no room for an audit stream of {size} bytes beside "
                f"{reserve(size)} for the other streams: give JetStream more (max_file_store, or "
                "the account's limit), or provision with less (audit_bytes)",
            )
        size //= 2
    await js.add_stream(audit_config(region, replicas, size))
    log.info("the audit stream has room for %d bytes", size)


def reserve(size: int) -> int:
    """Bytes that stay for the other streams beside an audit stream of ``size`` bytes."""
    return min(RESERVE_BYTES, max(int(size * RESERVE_SHARE / (1 - RESERVE_SHARE)), 1))


async def _fits(js: JetStreamContext, size: int, replicas: int) -> bool:
    """Whether the broker would reserve ``size`` bytes now, found by making such a stream."""
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
