"""Incidents that a real Auditor records, and its answers to operators."""

from __future__ import annotations

import shutil
import time

import pytest
from kcm_auditor.journal.verify import Anchor, verify
from kcm_runtime.audit.stream_chain import MARK_EVERY
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

from tests.audit_rig import REGION, Emitting, event, until
from tests.integration.auditor_rig import Rig
from tests.integration.living import eventually


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
    (line,) = [line for line in rig.log.splitlines() if "incident fork" in line][:1]
    assert " region=eu " in line


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["the end", "everything"])
async def test_a_journal_set_back_is_found_out_and_filled_again(rig: Rig, lost: str) -> None:
    """By the last head that was signed, which is in the control stream."""
    await rig.start_auditor()
    gw = Emitting(rig.system, "gw")
    for _ in range(MARK_EVERY + 1):
        await rig.broker.store("gw", gw.signed([event()]))
    await until(lambda: len(rig.events("gw")) == MARK_EVERY + 1)

    async def signed() -> bool:
        return await rig.head() > 0

    await eventually(signed)
    rig.end_auditor()
    report = verify(rig.journal)
    anchor = Anchor(report.entries, bytes.fromhex(report.head))
    (path,) = rig.journal.glob("*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    if lost == "the end":
        path.write_bytes(b"".join(lines[:6]))
    else:
        shutil.rmtree(rig.journal)
    assert len(rig.events("gw")) < 5
    await rig.start_auditor()
    await until(lambda: len(rig.events("gw")) == MARK_EVERY + 1)
    assert ("journal-behind", None) in rig.incidents()
    rig.end_auditor()
    assert verify(rig.journal, rig.system.verifier).sound
    assert not verify(rig.journal, rig.system.verifier, anchor).sound


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


async def ask(rig: Rig, verb: str, payload: Message, signer: str = "olga") -> tuple[bytes, bytes]:
    request = AdminRequest(
        region=REGION,
        noun=NOUN,
        verb=verb,
        instance=None,
        incarnation=None,
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
