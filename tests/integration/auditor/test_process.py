"""The Auditor as a process with a real broker: start, end, crashes, and several regions."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from kcm_auditor.journal.verify import verify
from kcm_schemas.audit import EventType
from kcm_schemas.roster import Role

from tests.audit_rig import Emitting, event, until
from tests.integration.auditor_rig import Broker, Rig, make_rig, recorded


async def test_from_start_to_stop(rig: Rig) -> None:
    await rig.start_auditor()
    async with rig.emitter("gw") as emitter:
        for number in range(1000):
            emitter.emit(EventType.DATA_ENCRYPT, tenant="acme", service="billing", count=number)
    await until(lambda: recorded(rig, EventType.INSTANCE_STOP))
    assert rig.end_auditor() == 0
    assert recorded(rig) == list(range(1000))
    assert [seq for seq, _ in rig.events("gw")] == list(range(1, 1003))
    report = verify(rig.journal, rig.system.verifier)
    assert report.problems == ()
    assert rig.entries()[-1].content.kind == "head"
    assert rig.incidents() == []
    assert not rig.ready.exists()


async def test_killed_in_mid_traffic_and_started_again(rig: Rig) -> None:
    await rig.start_auditor()
    enough = asyncio.Event()
    async with rig.emitter("gw") as emitter:

        async def flood() -> int:
            number = 0
            while not enough.is_set():
                emitter.emit(EventType.DATA_ENCRYPT, count=number)
                number += 1
                if number % 20 == 0:
                    await asyncio.sleep(0.01)
            return number

        traffic = asyncio.create_task(flood())
        for _ in range(3):
            before = len(recorded(rig))
            await until(lambda before=before: len(recorded(rig)) > before + 300)
            rig.end_auditor(signal.SIGKILL)
            await rig.start_auditor()
        enough.set()
        total = await traffic
    await until(lambda: recorded(rig, EventType.INSTANCE_STOP))
    assert rig.end_auditor() == 0
    assert total > 900
    assert recorded(rig) == list(range(total))
    assert verify(rig.journal, rig.system.verifier).problems == ()
    # What is left to say: the Auditor's own incarnations ended without a stop.
    assert {who for _, who in rig.incidents()} <= {"auditor", None}
    assert {what for what, _ in rig.incidents()} <= {"restart", "journal-repaired"}


@pytest.mark.parametrize("kill", [False, True])
async def test_the_broker_is_restarted(rig: Rig, kill: bool) -> None:
    await rig.start_auditor()
    async with rig.emitter("gw") as emitter:
        emitter.emit(EventType.DATA_ENCRYPT, count=0)
        await until(lambda: len(recorded(rig)) == 1)
        rig.broker.stop(kill=kill)
        for number in range(1, 500):
            emitter.emit(EventType.DATA_ENCRYPT, count=number)
        await rig.broker.start()
        await until(lambda: len(recorded(rig)) == 500)
    assert recorded(rig) == list(range(500))
    assert rig.end_auditor() == 0
    assert verify(rig.journal, rig.system.verifier).problems == ()
    assert rig.incidents() == []


async def test_it_ends_in_order_without_a_broker(rig: Rig) -> None:
    await rig.start_auditor()
    await until(lambda: rig.events("auditor"))
    rig.broker.stop(kill=True)
    await until(lambda: "lost the broker" in rig.log)
    assert rig.end_auditor() == 0
    assert rig.entries()[-1].content.kind == "head"


async def test_it_waits_for_a_stream_and_says_so(tmp_path: Path) -> None:
    with make_rig(tmp_path) as rig:
        await rig.broker.start()
        rig.configure()
        await rig.start_auditor()
        await until(lambda: "has no stream KCM_AUDIT" in rig.log)
        await rig.broker.provision()
        async with rig.emitter("gw") as emitter:
            emitter.emit(EventType.DATA_ENCRYPT, count=7)
            await until(lambda: recorded(rig) == [7])
        assert rig.end_auditor() == 0


async def test_somebody_new_on_the_roster(rig: Rig) -> None:
    await rig.start_auditor()
    rig.system.add("new", Role.GATEWAY)
    rig.system.version += 1
    rig.system.write_roster()
    async with rig.emitter("new") as emitter:
        emitter.emit(EventType.DATA_ENCRYPT, count=1)
        await until(lambda: rig.events("new"))
    rig.end_auditor()
    assert rig.incidents() == []


async def test_two_regions(rig: Rig) -> None:
    other = Broker(rig.directory / "us", region="us")
    rig.system.add("us-gw", Role.GATEWAY, "us")
    rig.configure(other)
    await rig.start_auditor()
    await rig.broker.store("gw", Emitting(rig.system, "gw").signed([event()]))
    await until(lambda: rig.events("gw"))
    try:
        # The other region comes later; the first one did not wait for it.
        await other.start()
        await other.provision()
        async with rig.emitter("us-gw", other) as emitter:
            emitter.emit(EventType.DATA_ENCRYPT)
            await until(lambda: rig.events("us-gw"))
        # A statement of one region does not count in another.
        await other.store("gw", Emitting(rig.system, "gw", b"c" * 16).signed([event()]))
        await until(lambda: ("misplaced", "gw") in rig.incidents())
        assert rig.end_auditor() == 0
    finally:
        other.stop(kill=True)


async def test_a_damaged_journal_is_not_continued(rig: Rig) -> None:
    await rig.start_auditor()
    await rig.broker.store("gw", Emitting(rig.system, "gw").signed([event()]))
    await until(lambda: rig.events("gw"))
    rig.end_auditor()
    (path,) = rig.journal.glob("*.jsonl")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(AssertionError):
        await rig.start_auditor()
    assert rig.process is not None
    assert rig.process.wait(10) == 1
    assert path.name in rig.log
