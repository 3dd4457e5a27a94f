"""Trimming over a real broker: an Auditor as a process, a Core's part in this one."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from kcm_auditor import heads
from kcm_auditor.journal.verify import verify
from kcm_core.trimming import TrimFiles, Trimmer
from kcm_core.trimming.policy import Policy
from kcm_runtime.audit.stream import AuditStream
from kcm_runtime.clock import SystemClock, SystemRandomness
from kcm_runtime.host import Host
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.streams import ControlLog
from kcm_schemas import subjects
from kcm_schemas.roster import Role

from tests.audit_rig import REGION, Emitting, event, until
from tests.integration.auditor_rig import Rig, make_rig
from tests.integration.living import eventually

pytestmark = pytest.mark.slow

assert heads.HEAD_S <= 10, "these tests wait for heads"


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    with make_rig(tmp_path) as rig:
        rig.system.add("core", Role.CORE)
        await rig.begin()
        yield rig


@asynccontextmanager
async def trimming(rig: Rig) -> AsyncIterator[Trimmer]:
    """What a Core does about the audit stream, kept for no time at all; rounds are run by hand."""
    connection = Connection(rig.broker.address, "core")
    await connection.start()
    clock = SystemClock()
    trimmer = Trimmer(
        Host(rig.system.instance_context("core", b"c" * 16), clock, SystemRandomness(), _nothing),
        control=ControlLog(connection, REGION, clock),
        store=AuditStream(connection, REGION, clock),
        state=TrimFiles(rig.directory / "core"),
        policy=Policy(quorum=0, keep_ms=0, keep_full_ms=0),
    )
    trimmer.start()
    try:
        yield trimmer
    finally:
        await trimmer.close()
        await connection.close()


def _nothing(*_: object, **__: object) -> None:
    """No Core records here what it does."""


async def run(*arguments: str) -> tuple[int, bytes]:
    """Run the Auditor's command and return its code and what it says."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kcm_auditor", *arguments, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said


async def fill(rig: Rig, gw: Emitting, count: int) -> None:
    async with rig.broker.client() as client:
        for _ in range(count):
            await client.jetstream().publish(subjects.audit(REGION, "gw"), gw.signed([event()]))


async def first(rig: Rig) -> int:
    async with rig.broker.client() as client:
        return (await client.jetstream().stream_info(subjects.AUDIT_STREAM)).state.first_seq


async def trim_to(rig: Rig, trimmer: Trimmer, through: int) -> None:
    """Look again and again until it is done."""

    async def done() -> bool:
        await trimmer.round()
        return await first(rig) > through

    try:
        await eventually(done, 30)
    except AssertionError:
        raise AssertionError(f"{trimmer.why}\n{rig.log}") from None


async def test_a_journal_put_back_behind_a_trim_and_made_good_from_an_archive(rig: Rig) -> None:
    gw = Emitting(rig.system, "gw")
    await rig.start_auditor()
    await fill(rig, gw, 30)
    await until(lambda: len(rig.events("gw")) == 30)
    assert rig.end_auditor() == 0
    backup = rig.directory / "backup"
    shutil.copytree(rig.journal, backup)
    await rig.start_auditor()
    await fill(rig, gw, 120)
    async with trimming(rig) as trimmer:
        await trim_to(rig, trimmer, 128)
        # What is trimmed and recorded is no hole, also for who starts now.
        rig.end_auditor()
        await rig.start_auditor()
        await until(lambda: len(rig.events("gw")) == 150)
        await eventually(lambda: _kind(rig, "trimmed"))
        rig.end_auditor()
        assert [what for what, _ in rig.incidents()] == []
        assert verify(rig.journal, rig.system.verifier).sound

        archive = rig.directory / "archive"
        rig.journal.rename(archive)
        shutil.copytree(backup, rig.journal)
        await rig.start_auditor()
        await until(lambda: ("journal-lost", None) in rig.incidents())
        await until(lambda: any(e.type == "audit.journal-lost" for _, e in rig.events("auditor")))
        signed = await rig.head()
        await fill(rig, gw, 200)
        await until(lambda: len(rig.events("gw")) > 200)
        rig.end_auditor()
        assert ("stream-hole", None) not in rig.incidents()
        code, said = await run("--verify", str(rig.journal))
        assert code == 1
        assert b"journal-lost" in said
        # It signed nothing meanwhile, and nothing was trimmed on its word.
        assert await rig.head() == signed
        await trimmer.round()
        assert await first(rig) <= signed + 1

        # The archive has what was lost: with it everything goes on.
        shutil.rmtree(rig.journal)
        archive.rename(rig.journal)
        await rig.start_auditor()
        await trim_to(rig, trimmer, 256)
        rig.end_auditor()
        # It has everything that the last head says.
        assert [what for what, _ in rig.incidents()] == []
        assert verify(rig.journal, rig.system.verifier).sound


async def _kind(rig: Rig, kind: str) -> bool:
    return any(entry.content.kind == kind for entry in rig.entries())


async def test_a_loss_that_its_operator_accepts(rig: Rig) -> None:
    gw = Emitting(rig.system, "gw")
    await rig.start_auditor()
    await fill(rig, gw, 100)
    async with trimming(rig) as trimmer:
        await trim_to(rig, trimmer, 64)
        rig.end_auditor()
        shutil.rmtree(rig.journal)
        await rig.start_auditor()
        await until(lambda: ("journal-lost", None) in rig.incidents())
        rig.end_auditor()
        assert not verify(rig.journal).sound
        command = ("--config", str(rig.directory / "auditor.toml"), "--accept-loss", REGION)
        assert (await run(*command))[0] == 0
        assert (await run(*command))[0] == 1
        assert verify(rig.journal).sound
        await rig.start_auditor()
        await fill(rig, gw, 100)
        await trim_to(rig, trimmer, 128)
        rig.end_auditor()
    assert verify(rig.journal, rig.system.verifier).sound


async def test_a_core_that_purges_without_a_trim_shows(rig: Rig) -> None:
    gw = Emitting(rig.system, "gw")
    await fill(rig, gw, 100)
    async with rig.broker.client() as client:
        await client.jetstream().purge_stream(subjects.AUDIT_STREAM, seq=51)
    await rig.start_auditor()
    await until(lambda: ("stream-hole", None) in rig.incidents())
    async with trimming(rig) as trimmer:
        await trimmer.round()
        assert "vanished without a signed trim" in trimmer.why
    rig.end_auditor()
