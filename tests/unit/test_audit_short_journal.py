"""A journal that is shorter than what its Auditor signed: the head in the control stream tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kcm_schemas.auditor import StreamHead
from kcm_schemas.codec import encode
from kcm_schemas.signed import Kind

from tests.audit_rig import System
from tests.unit.audit_trimming_rig import CREATED, Stream, filled, incarnation, with_two_auditors


@pytest.fixture
def system(tmp_path: Path) -> System:
    return with_two_auditors(tmp_path)


@pytest.fixture
def stream(system: System) -> Stream:
    return filled(system)


def head(stream: Stream, signer: str = "auditor", **changes: Any) -> bytes:
    said = {"auditor": signer, "region": "eu", "created": CREATED, **changes}
    body = StreamHead(through=128, digest=stream.digest(128), time_ms=1, **said)
    return encode(stream.system.identities[signer].sign(Kind.STREAM_HEAD, body))


async def read(system: System, stream: Stream, kept: int, statement: bytes) -> list[str]:
    """Incidents of a start with a journal of ``kept`` messages, which reads the whole stream."""
    run = incarnation(system)
    if kept:
        await run.recorder.opened("eu", stream.facts, b"")
        await run.recorder.take(stream.arrivals(0)[:kept])
    await run.end()
    again = incarnation(system)
    await again.recorder.opened("eu", stream.facts, statement)
    await again.recorder.take(stream.arrivals(again.recorder.position("eu")))
    assert again.recorder.position("eu") == 150
    await again.end()
    return again.incidents()


@pytest.mark.parametrize("kept", [0, 1, 127])
async def test_a_journal_without_what_was_signed_is_behind(
    system: System, stream: Stream, kept: int
) -> None:
    assert await read(system, stream, kept, head(stream)) == ["journal-behind"]


@pytest.mark.parametrize("kept", [128, 150])
async def test_a_journal_with_what_was_signed_is_not(
    system: System, stream: Stream, kept: int
) -> None:
    assert await read(system, stream, kept, head(stream)) == []


@pytest.mark.parametrize("what", ["nothing", "garbage", "another's", "us", "another stream's"])
async def test_a_head_that_is_not_about_this_journal_and_stream_says_nothing(
    system: System, stream: Stream, what: str
) -> None:
    statement = {
        "nothing": b"",
        "garbage": b"garbage",
        "another's": head(stream, "other"),
        "us": head(stream, region="us"),
        "another stream's": head(stream, created=CREATED + 1),
    }[what]
    assert await read(system, stream, 10, statement) == []


async def test_what_was_signed_and_trimmed_is_lost_and_not_behind(
    system: System, stream: Stream
) -> None:
    trim = stream.trim(128)
    stream.first = 129
    run = incarnation(system)
    await run.recorder.opened("eu", stream.facts, head(stream))
    await run.look(stream, trim)
    assert run.incidents() == ["journal-lost", "gap"]
    await run.end()
