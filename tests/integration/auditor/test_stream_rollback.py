"""An audit stream that was rolled back or recreated is noticed, and no event is lost."""

from __future__ import annotations

import shutil
import signal

import pytest
from kcm_auditor.journal.format import Passed
from kcm_auditor.journal.verify import verify
from kcm_schemas import subjects
from kcm_schemas.audit import EventType
from kcm_schemas.roster import Role

from tests.audit_rig import Emitting, event, until
from tests.integration.auditor_rig import Rig


async def test_a_stream_that_was_made_anew(rig: Rig) -> None:
    await rig.start_auditor()
    gw = Emitting(rig.system, "gw")
    bodies = [gw.signed([event()]) for _ in range(4)]
    for body in bodies[:3]:
        await rig.broker.store("gw", body)
    await until(lambda: len(rig.events("gw")) == 3)
    rig.end_auditor()
    async with rig.broker.client() as client:
        await client.jetstream().delete_stream(subjects.AUDIT_STREAM)
    await rig.broker.provision(control=False)
    for body in bodies[1:]:
        await rig.broker.store("gw", body)
    await rig.start_auditor()
    await until(lambda: len(rig.events("gw")) == 4)
    assert ("stream-replaced", None) in rig.incidents()
    assert [seq for seq, _ in rig.events("gw")] == [1, 2, 3, 4]
    rig.end_auditor()


@pytest.mark.parametrize("looks", ["goes on", "binds anew"])
async def test_a_stream_that_went_back_and_was_written_on_loses_no_event(
    rig: Rig, looks: str
) -> None:
    """The Auditor comes back when the stream is longer again than what it had recorded."""
    await rig.start_auditor()
    gw = Emitting(rig.system, "gw")

    async def emit(count: int) -> None:
        for _ in range(count):
            await rig.broker.store("gw", gw.signed([event()]))

    store, earlier = rig.broker.directory / "js", rig.directory / "earlier"
    await emit(10)
    await until(lambda: len(rig.events("gw")) == 10)
    rig.broker.stop()
    shutil.copytree(store, earlier)
    await rig.broker.start()
    await emit(20)
    await until(lambda: len(rig.events("gw")) == 30)
    rig.broker.stop()
    shutil.rmtree(store)
    shutil.copytree(earlier, store)
    assert rig.process is not None
    if looks == "goes on":
        rig.process.send_signal(signal.SIGSTOP)
    else:
        rig.end_auditor()
    await rig.broker.start()
    await emit(25)
    if looks == "goes on":
        rig.process.send_signal(signal.SIGCONT)
    else:
        await rig.start_auditor()
    await until(lambda: len(rig.events("gw")) == 55)
    assert [seq for seq, _ in rig.events("gw")] == list(range(1, 56))
    assert ("stream-rolled-back", None) in rig.incidents()
    assert not {"gap", "fork", "journal-behind"} & {kind for kind, _ in rig.incidents()}
    assert rig.end_auditor() == 0
    assert verify(rig.journal, rig.system.verifier).gone == ()


@pytest.mark.parametrize("last", ["garbage", "known"])
async def test_nothing_that_lies_at_the_last_place_hides_a_stream_that_went_back(
    rig: Rig, last: str
) -> None:
    rig.system.add("gw2", Role.GATEWAY)
    rig.configure()
    await rig.start_auditor()
    gw, gw2 = Emitting(rig.system, "gw"), Emitting(rig.system, "gw2")
    first = gw.signed([event()])
    store, earlier = rig.broker.directory / "js", rig.directory / "earlier"
    await rig.broker.store("gw", first)
    await until(lambda: len(rig.events("gw")) == 1)
    rig.broker.stop()
    shutil.copytree(store, earlier)
    await rig.broker.start()
    for _ in range(5):
        await rig.broker.store("gw", gw.signed([event()]))
    await until(lambda: len(rig.events("gw")) == 6)
    rig.end_auditor()
    passed = [entry.content for entry in rig.entries() if isinstance(entry.content, Passed)]
    rig.broker.stop()
    shutil.rmtree(store)
    shutil.copytree(earlier, store)
    await rig.broker.start()
    new = 0
    async with rig.broker.client() as client:
        js = client.jetstream()
        while (await js.stream_info(subjects.AUDIT_STREAM)).state.last_seq < passed[
            -1
        ].position - 2:
            await rig.broker.store("gw2", gw2.signed([event()]))
            new += 1
    # In order to the end: the emitters' own chains will not show that it is missing.
    await rig.broker.store("gw2", gw2.signed([event(EventType.INSTANCE_STOP)]))
    await rig.broker.store("gw", first if last == "known" else b"garbage")
    await rig.start_auditor()
    await until(lambda: len(rig.events("gw2")) == new + 1)
    found = {kind for kind, _ in rig.incidents()}
    assert "stream-rolled-back" in found
    assert not {"journal-behind", "gap", "fork"} & found
    rig.end_auditor()


async def test_a_signer_who_comes_later_is_no_sign_of_a_stream_that_went_back(rig: Rig) -> None:
    await rig.start_auditor()
    rig.system.identity("late")
    late = Emitting(rig.system, "late")
    await rig.broker.store("late", late.signed([event()]))
    await until(lambda: ("untrusted", None) in rig.incidents())
    rig.end_auditor(signal.SIGKILL)
    rig.system.add("late", Role.GATEWAY)
    rig.system.version += 1
    rig.configure()
    await rig.start_auditor()
    await rig.broker.store("late", late.signed([event()]))
    await until(lambda: len(rig.events("late")) == 1)
    assert "stream-rolled-back" not in {kind for kind, _ in rig.incidents()}
    rig.end_auditor()


@pytest.mark.parametrize("what", ["garbage", "fork", "another region's"])
async def test_what_is_kept_out_at_the_last_place_is_no_sign_of_a_stream_that_went_back(
    rig: Rig, what: str
) -> None:
    gw = Emitting(rig.system, "gw")
    for _ in range(2):
        await rig.broker.store("gw", gw.signed([event()]))
    last = {
        "garbage": b"garbage",
        "fork": Emitting(rig.system, "gw").signed([event(detail="another story")]),
        "another region's": Emitting(rig.system, "gw", region="us").signed([event()]),
    }[what]
    await rig.broker.store("gw", last)
    await rig.start_auditor()
    await until(lambda: len(rig.incidents()) == 1)
    assert rig.end_auditor() == 0
    await rig.start_auditor()
    await rig.broker.store("gw", gw.signed([event()]))
    await until(lambda: len(rig.events("gw")) == 3)
    assert "stream-rolled-back" not in {kind for kind, _ in rig.incidents()}
    rig.end_auditor()
