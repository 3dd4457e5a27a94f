"""The Auditor as a process beside a real broker: nothing lost, nothing doubled, lies told."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kcm_auditor.journal.format import Passed
from kcm_auditor.journal.verify import Anchor, verify
from kcm_runtime.audit.stream_size import audit_config
from kcm_schemas import subjects
from kcm_schemas.admin.requests import AdminRequest, Empty
from kcm_schemas.audit import AuditBatch, EventType
from kcm_schemas.auditor import NOUN, AuditorStatus, TailPage, TailQuery
from kcm_schemas.codec import Message, decode, encode
from kcm_schemas.codes import Code
from kcm_schemas.data import Failure
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind
from kcm_trust.identity import digest
from kcm_trust.verify import Untrusted
from nats.js import JetStreamContext

from tests.audit_rig import REGION, Emitting, event, until
from tests.integration.auditor_rig import Broker, Rig, make_rig


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    with make_rig(tmp_path) as rig:
        await rig.broker.start()
        await rig.broker.provision()
        rig.configure()
        yield rig


def recorded(rig: Rig, kind: str = EventType.DATA_ENCRYPT) -> list[int]:
    return [found.count for _, found in rig.events("gw") if found.type == kind]


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
    await until(lambda: ": lost " in rig.log)
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


async def test_lies_are_told_and_nothing_stops(rig: Rig) -> None:
    await rig.start_auditor()
    gw = Emitting(rig.system, "gw")
    store = rig.broker.store
    await store("gw", gw.signed([event(), event()]))
    await store("gw", b"not even a statement")
    changed = gw.signed([event()])
    await store("gw", changed[:-1] + bytes([changed[-1] ^ 1]))
    await store("gw", gw.signed([event()]))
    await store("gw", Emitting(rig.system, "gw").signed([event(detail="other"), event()]))
    await store("other", gw.signed([event()]))
    await store("gw", changed)
    last = gw.signed([event(detail="end")])
    await store("gw", last)
    await store("gw", last)
    await until(lambda: len(rig.events("gw")) == 4)
    await until(lambda: len(rig.incidents()) == 7)
    assert rig.incidents() == [
        ("untrusted", None),
        ("untrusted", None),
        ("gap", "gw"),
        ("fork", "gw"),
        ("misplaced", "gw"),
        # The batch that was misplaced is missing where it belongs; and the late one comes late.
        ("fork", "gw"),
        ("gap", "gw"),
    ]
    assert rig.end_auditor() == 0
    assert verify(rig.journal, rig.system.verifier).problems == ()
    assert "incident fork in region eu" in rig.log


async def test_a_journal_set_back_is_found_out_and_filled_again(rig: Rig) -> None:
    await rig.start_auditor()
    gw = Emitting(rig.system, "gw")
    for _ in range(5):
        await rig.broker.store("gw", gw.signed([event()]))
    await until(lambda: len(rig.events("gw")) == 5)
    rig.end_auditor()
    report = verify(rig.journal)
    anchor = Anchor(report.entries, bytes.fromhex(report.head))
    (path,) = rig.journal.glob("*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines[:6] if line]
    path.write_bytes(b"".join(kept))
    assert len(rig.events("gw")) < 5
    await rig.start_auditor()
    await until(lambda: len(rig.events("gw")) == 5)
    assert ("journal-behind", None) in rig.incidents()
    rig.end_auditor()
    assert verify(rig.journal, rig.system.verifier).sound
    assert not verify(rig.journal, rig.system.verifier, anchor).sound


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


async def take_all(js: JetStreamContext, last: int) -> None:
    """As somebody who runs ``nats consumer next`` on the Auditor's consumer does."""
    taken = await js.pull_subscribe_bind(consumer="kcm-auditor", stream=subjects.AUDIT_STREAM)
    floor = 0
    while floor < last:
        with contextlib.suppress(TimeoutError):
            for message in await taken.fetch(64, timeout=0.5):
                await message.ack_sync()
        info = await js.consumer_info(subjects.AUDIT_STREAM, "kcm-auditor")
        assert info.ack_floor is not None
        floor = info.ack_floor.stream_seq


@pytest.mark.parametrize("last", ["garbage", "known", "acknowledged"])
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
    if last == "acknowledged":
        # The consumer stands where the journal does: somebody took what it had not delivered.
        async with rig.broker.client() as client:
            js = client.jetstream()
            await take_all(js, passed[-1].position)
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


async def test_messages_taken_out_of_the_stream(rig: Rig) -> None:
    gw = Emitting(rig.system, "gw")
    async with rig.broker.client() as client:
        # Somebody with the operator's password allowed it first.
        config = audit_config(REGION, 1, 64 << 20)
        config.deny_delete = False
        await client.jetstream().delete_stream(subjects.AUDIT_STREAM)
        await client.jetstream().add_stream(config)
    for _ in range(5):
        await rig.broker.store("gw", gw.signed([event()]))
    async with rig.broker.client() as client:
        for sequence in (2, 3):
            await client.jetstream().delete_msg(subjects.AUDIT_STREAM, sequence)
    await rig.start_auditor()
    await until(lambda: len(rig.events("gw")) == 3)
    assert rig.incidents()[:2] == [("stream-hole", None), ("gap", "gw")]
    rig.end_auditor()


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


async def ask(rig: Rig, verb: str, payload: Message, signer: str = "olga") -> tuple[bytes, bytes]:
    request = AdminRequest(
        region=REGION,
        noun=NOUN,
        verb=verb,
        request_id=b"r" * 16,
        deadline_ms=time.time_ns() // 1_000_000 + 5000,
        payload=encode(payload),
    )
    body = encode(rig.system.identity(signer).sign(Kind.ADMIN, request))
    async with rig.broker.client() as client:
        answer = await client.request(subjects.auditor(REGION, verb), body, timeout=5)
    return answer.data, body


async def test_operators_are_answered(rig: Rig) -> None:
    await rig.start_auditor()
    gw = Emitting(rig.system, "gw")
    for _ in range(3):
        await rig.broker.store("gw", gw.signed([event()]))
    await rig.broker.store("gw", b"rubbish")
    await until(lambda: len(rig.incidents()) == 1)
    verifier = rig.system.verifier

    answer, body = await ask(rig, "status", Empty())
    reply, entry = verifier.admin_reply(answer, Role.AUDITOR)
    assert (entry.instance, reply.request, reply.code) == ("auditor", digest(body), Code.OK)
    status = decode(AuditorStatus, reply.payload)
    found = {emitter.emitter: emitter for emitter in status.emitters}
    assert (found["gw"].state, found["gw"].last_seq, found["gw"].incarnation) == (
        "alive",
        3,
        gw.incarnation,
    )
    assert status.incidents == 1
    assert [(region.region, region.reachable) for region in status.regions] == [(REGION, True)]
    with pytest.raises(Untrusted):
        verifier.admin_reply(answer)

    answer, _ = await ask(rig, "tail", TailQuery(limit=256, before=0))
    page = decode(TailPage, verifier.admin_reply(answer, Role.AUDITOR)[0].payload)
    batches = [verifier.audit(item.statement) for item in page.entries if item.statement]
    assert [b.first for b in batches if isinstance(b, AuditBatch) and b.emitter == "gw"] == [
        1,
        2,
        3,
    ]
    assert [item.incident for item in page.entries if item.incident] == ["untrusted"]
    last = page.entries[-1].seq
    answer, _ = await ask(rig, "tail", TailQuery(limit=2, before=last))
    page = decode(TailPage, verifier.admin_reply(answer, Role.AUDITOR)[0].payload)
    assert [item.seq < last for item in page.entries] == [True, True]

    answer, _ = await ask(rig, "nonsense", Empty())
    assert verifier.admin_reply(answer, Role.AUDITOR)[0].code is Code.MALFORMED
    # Somebody who is no operator, though on the roster.
    answer, _ = await ask(rig, "status", Empty(), signer="gw")
    assert decode(Failure, answer).error is Code.FORBIDDEN

    def read_events() -> list[str | None]:
        return [e.actor for _, e in rig.events("auditor") if e.type == EventType.AUDIT_READ]

    # That somebody asked stands in the journal too; the second tail is counted for a minute.
    await until(lambda: len(read_events()) == 3)
    assert set(read_events()) == {"olga"}
    # The head that an operator was told is one to verify the journal with.
    rig.end_auditor()
    assert verify(rig.journal, verifier, Anchor(status.seq, status.head)).problems == ()


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
