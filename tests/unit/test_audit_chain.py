from __future__ import annotations

from hashlib import sha256

from kcm_runtime.audit.event_chain import BATCH_BYTES_MAX, Chain, EventBuffer, link
from kcm_schemas import limits
from kcm_schemas.audit import GENESIS


def test_link_is_the_documented_hash() -> None:
    # Spelled out here, so that a change of the format cannot go unnoticed.
    label = b"kcm/v1/audit-chain"
    written = b"".join(
        len(part).to_bytes(2, "big") + part for part in (label, bytes(32), b"an event")
    )
    assert link(GENESIS, b"an event") == sha256(written).digest()


def test_chain_counts_from_one_and_depends_on_order() -> None:
    one = Chain().extend([b"a", b"b"])
    other = Chain().extend([b"b", b"a"])
    assert (one.next_seq, other.next_seq) == (3, 3)
    assert one.head != other.head
    assert Chain().append(b"a").append(b"b") == one


def test_runs_continue_one_another() -> None:
    buffer = EventBuffer()
    events = [f"{n}".encode() for n in range(2 * limits.AUDIT_EVENTS_MAX + 3)]
    assert all(buffer.add(event) for event in events)
    chain, seen = Chain(), list[bytes]()
    while (run := buffer.take()) is not None:
        assert (run.first, run.previous) == (chain.next_seq, chain.head)
        assert len(run.events) <= limits.AUDIT_EVENTS_MAX
        chain = chain.extend(run.events)
        seen += run.events
    assert seen == events
    assert len(buffer) == 0


def test_a_loss_is_a_jump_of_the_sequence_and_no_break_of_the_chain() -> None:
    buffer = EventBuffer(events_max=3)
    assert [buffer.add(b"%d" % n) for n in range(5)] == [True, True, True, False, False]
    assert buffer.dropped == 2
    first = buffer.take()
    assert first is not None
    assert buffer.add(b"later")
    second = buffer.take()
    assert second is not None
    assert (first.first, len(first.events), second.first) == (1, 3, 6)
    assert second.previous == Chain().extend(first.events).head


def test_a_run_never_spans_a_jump() -> None:
    buffer = EventBuffer(events_max=2, bytes_max=100)
    buffer.add(b"1")
    buffer.add(b"x" * 100)
    buffer.add(b"3")
    runs = [buffer.take(), buffer.take(), buffer.take()]
    assert [(run.first, run.events) for run in runs if run] == [(1, [b"1"]), (3, [b"3"])]


def test_bounds_by_bytes() -> None:
    buffer = EventBuffer()
    assert not buffer.add(b"x" * (limits.AUDIT_EVENT_MAX + 1))
    big = b"x" * limits.AUDIT_EVENT_MAX
    count = 2 * BATCH_BYTES_MAX // limits.AUDIT_EVENT_MAX
    assert all(buffer.add(big) for _ in range(count))
    assert buffer.fills_batch
    run = buffer.take()
    assert run is not None
    assert sum(map(len, run.events)) <= BATCH_BYTES_MAX

    small = EventBuffer(bytes_max=1000)
    assert [small.add(b"x" * 300) for _ in range(4)] == [True, True, True, False]


def test_room_ends_before_the_buffer_does() -> None:
    buffer = EventBuffer(events_max=10)
    while buffer.has_room:
        assert buffer.add(b"x")
    reserve = 0
    while buffer.add(b"purge"):
        reserve += 1
    assert reserve >= 2
    buffer.take()
    assert buffer.has_room
