"""The streams that a login may ask about, as the broker acknowledges them."""

from __future__ import annotations

import asyncio
import json
from typing import Final

from kcm_broker import server_subjects
from kcm_runtime.clock import Clock
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.jetstream_errors import StreamMissing
from kcm_runtime.nats.provision import check_streams
from kcm_runtime.nats.stream_protection import Unfit
from kcm_schemas.codes import KcmError

from kcm_deployment.doctor.checks.clock import check_clock, no_time
from kcm_deployment.doctor.finding import Finding, bad, good, unknown
from kcm_deployment.doctor.plan import Address
from kcm_deployment.doctor.session import LOGIN_S, NAME

ASK_S: Final = 5.0
"""Seconds for the answer about one stream."""

_PROVISION: Final = "run `kcm region provision --config FILE`: it adds what is missing"


async def check_all_streams(address: Address, clock: Clock) -> tuple[Finding, ...]:
    """Return the findings about the streams of a login, and about the broker's clock."""
    if not address.streams:
        return (no_time(),)
    # Its version is a check of its own.
    bus = address.bus.model_copy(update={"allow_old_broker": True})
    connection = Connection(bus, NAME)
    try:
        await asyncio.wait_for(connection.start(), LOGIN_S * connection.nodes)
        asked = [_checked(connection, address.region, one) for one in address.streams]
        return tuple(await asyncio.gather(*asked, _clock(connection, address.streams[0], clock)))
    except (TimeoutError, Unfit):
        text = "the streams could not be asked about in time"
        return (unknown("streams", text, "correct what the other checks report"),)
    finally:
        await connection.close()


async def _checked(connection: Connection, region: str, stream: str) -> Finding:
    check = f"stream {stream}"
    try:
        await check_streams(connection, region, [stream])
    except Unfit as error:
        return bad(check, str(error).partition(": provision")[0], _PROVISION)
    except StreamMissing:
        return bad(check, "the stream does not exist", _PROVISION)
    except KcmError as error:
        fix = "check that JetStream of the broker has a leader, and that this login may ask"
        return unknown(check, f"the broker did not answer: {error.detail}", fix)
    return good(check, "the broker acknowledges its protection and its copies")


async def _clock(connection: Connection, stream: str, clock: Clock) -> Finding:
    before = clock.unix_ms()
    try:
        raw = await connection.request(server_subjects.info(stream), b"", ASK_S)
        answer = json.loads(raw)
    except (KcmError, ValueError, RecursionError):
        return no_time()
    stamp = answer.get("ts") if isinstance(answer, dict) else None
    return check_clock(stamp, before, clock.unix_ms())
