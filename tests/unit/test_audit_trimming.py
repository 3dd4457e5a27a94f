"""An Auditor beside a stream that is trimmed: what it signs, and what it disputes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kcm_auditor.heads import SignedHeads, to_sign
from kcm_auditor.journal.format import Passed
from kcm_auditor.journal.verify import verify
from kcm_auditor.positions import Book
from kcm_runtime.audit.stream_chain import MARK_EVERY, Place
from kcm_runtime.config import ConfigError

from tests.audit_rig import System
from tests.unit.audit_trimming_rig import Stream, filled, incarnation, with_two_auditors


@pytest.fixture
def system(tmp_path: Path) -> System:
    return with_two_auditors(tmp_path)


@pytest.fixture
def stream(system: System) -> Stream:
    return filled(system)


async def test_a_head_is_at_a_mark_that_is_on_the_disk(system: System, stream: Stream) -> None:
    run = incarnation(system)
    await run.recorder.opened("eu", stream.facts, b"")
    await run.recorder.take(stream.arrivals(0)[: MARK_EVERY - 1])
    assert run.recorder.head("eu") is None
    await run.recorder.take(stream.arrivals(MARK_EVERY - 1))
    head = run.recorder.head("eu")
    assert head is not None
    assert (head.sequence, head.digest) == (128, stream.digest(128))
    await run.end()


@pytest.mark.parametrize("segment_bytes", [1 << 26, 1])
async def test_the_chain_goes_on_after_a_restart(
    system: System, stream: Stream, segment_bytes: int
) -> None:
    run = incarnation(system, segment_bytes=segment_bytes)
    await run.read(stream)
    await run.end()
    stream.fill(100)
    again = incarnation(system, segment_bytes=segment_bytes)
    await again.recorder.opened("eu", stream.facts, b"")
    assert again.recorder.head("eu") == Place(128, stream.digest(128))
    await again.look(stream)
    assert again.recorder.head("eu") == Place(192, stream.digest(192))
    assert again.incidents() == []
    await again.end()
    assert verify(system.directory / "journal", system.verifier).problems == ()


async def test_a_trim_with_another_digest_is_disputed(system: System, stream: Stream) -> None:
    run = incarnation(system)
    await run.read(stream)
    await run.look(stream, stream.trim(128, digest=b"x" * 32))
    await run.look(stream, stream.trim(128, digest=b"x" * 32))
    assert run.incidents() == ["trim-disputed"]
    await run.end()
    assert verify(system.directory / "journal", system.verifier).problems == ()


async def test_a_crash_between_a_batch_and_the_chain_reads_it_again(
    system: System, stream: Stream
) -> None:
    run = incarnation(system)
    await run.recorder.opened("eu", stream.facts, b"")
    await run.recorder.take(stream.arrivals(0)[:100])
    await run.recorder.take(stream.arrivals(100))
    await run.end()
    (path,) = (system.directory / "journal").glob("*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    assert b'"kind":"passed"' in lines[-1]
    path.write_bytes(b"".join(lines[:-1]))
    again = incarnation(system)
    assert again.recorder.position("eu") == 100
    await again.read(stream)
    assert again.recorder.head("eu") == Place(128, stream.digest(128))
    assert again.incidents() == []
    await again.end()
    report = verify(system.directory / "journal", system.verifier)
    assert (report.problems, report.events) == ((), 150)


def test_nothing_is_signed_below_what_was_signed() -> None:
    low, high = Place(64, b"l" * 32), Place(128, b"h" * 32)
    assert to_sign(None, 0, 0) is None
    assert to_sign(low, 0, 0) == low
    assert to_sign(low, 64, 64) is None
    # Signed and not stored, because this process ended in between: the same once more.
    assert to_sign(low, 64, 0) == low
    assert to_sign(low, 128, 0) is None
    assert to_sign(low, 128, 128) is None
    assert to_sign(high, 64, 64) == high


def test_what_was_signed_is_on_the_disk_for_each_stream(tmp_path: Path) -> None:
    path = tmp_path / "state" / "signed"
    signed = SignedHeads(path)
    assert signed.through("eu", 1) == 0
    signed.raise_to("eu", 1, 64)
    signed.raise_to("us", 1, 128)
    again = SignedHeads(path)
    assert (again.through("eu", 1), again.through("us", 1)) == (64, 128)
    assert again.through("eu", 2) == 0
    content = json.loads(path.read_text())
    for wrong in (
        [],
        {"version": 1},
        {**content, "signed": {"eu": [1]}},
        {**content, "signed": {"eu": [1, float("inf")]}},
    ):
        path.write_text(json.dumps(wrong).replace("Infinity", "1e999"))
        with pytest.raises(ConfigError, match="damaged"):
            SignedHeads(path)
    for version, told in ((None, "no version"), (2, "another version"), (True, "another version")):
        path.write_text(json.dumps({**content, "version": version}))
        with pytest.raises(ConfigError, match=f"has {told} of its format.*move it away"):
            SignedHeads(path)


def test_the_place_of_a_chain_comes_back_from_its_line() -> None:
    book = Book("auditor")
    book.restore(Passed(region="eu", position=70, digest=b"d" * 32, mark=64, mark_digest=b"m" * 32))
    assert book.region("eu").place == Place(70, b"d" * 32)
    assert book.region("eu").mark == Place(64, b"m" * 32)
    assert book.region("eu").whole
