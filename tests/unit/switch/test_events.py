"""What is recorded of holds: orders once, by whom and why; never what is only heard."""

from __future__ import annotations

import pytest
from kcm_schemas import subjects
from kcm_schemas.admin.holds import HoldPageQuery
from kcm_schemas.audit import EventType
from kcm_schemas.codec import encode
from kcm_schemas.signed import read_signed
from kcm_trust.statements import lift

from tests.fakes.virtual import let_pass, until
from tests.unit.switch.roster_rig import removed, rosters, signed, without
from tests.unit.switch.statements import held, hold, lifted
from tests.vectors.families.messages import identity

HOLDS = {one for one in EventType if one.value.startswith("hold.")}


def told(incarnation, *kinds):
    return [(kind, fields) for kind, fields in incarnation.events if kind in (kinds or HOLDS)]


@pytest.fixture
async def core(system):
    core = system.core("core-eu-1")
    await core.start()
    return core


async def test_an_order_is_recorded_with_who_what_and_why(core):
    one = hold(reason="contract ended")
    core.switch.issue(core.switch.verify(held(one)))
    core.switch.issue(core.switch.verify(lifted(one)))
    (placed, ended) = told(core, EventType.HOLD_PLACED, EventType.HOLD_LIFTED)
    assert placed == (
        EventType.HOLD_PLACED,
        {
            "hold": one.id,
            "target": "tenant acme",
            "tenant": "acme",
            "actor": "security",
            "detail": "contract ended",
        },
    )
    assert ended[0] == EventType.HOLD_LIFTED
    assert (ended[1]["hold"], ended[1]["actor"]) == (one.id, "security")


async def test_an_order_that_is_given_again_is_recorded_once(core):
    one = hold()
    for _ in range(3):
        core.switch.issue(core.switch.verify(held(one)))
    for _ in range(3):
        core.switch.issue(core.switch.verify(lifted(one)))
    core.switch.issue(core.switch.verify(held(one)))  # late: it is lifted
    kinds = [kind for kind, _ in told(core, EventType.HOLD_PLACED, EventType.HOLD_LIFTED)]
    assert kinds == [EventType.HOLD_PLACED, EventType.HOLD_LIFTED]


async def test_who_hears_of_an_order_records_what_it_did_itself(system, core):
    other = system.incarnation("gw-eu-1")
    await other.start()
    one = hold()
    core.switch.issue(core.switch.verify(held(one)))
    await core.switch.broadcast(core.switch.verify(held(one)))
    await until(lambda: other.count(EventType.HOLD_PURGED))
    core.switch.issue(core.switch.verify(lifted(one)))
    await core.switch.broadcast(core.switch.verify(lifted(one)))
    await until(lambda: other.count(EventType.HOLD_RELEASED))
    kinds = [kind for kind, _ in told(other)]
    assert kinds == [EventType.HOLD_PURGED, EventType.HOLD_RELEASED]
    assert [(fields["actor"], fields["detail"]) for _, fields in told(other)] == [
        ("security", "1 tenant; cause operator: drill"),
        ("security", "cause operator: over"),
    ]
    assert {fields["hold"] for _, fields in told(other)} == {one.id}


async def test_what_is_replayed_at_a_start_is_no_event(system, core):
    ended, current = hold(), hold(salt=b"s" * 16)
    for raw in (held(ended), lifted(ended), held(current)):
        core.switch.issue(core.switch.verify(raw))
    for one in (ended, current):
        await until(lambda one=one: core.switch.durable_at(one.id))
    for name in ("core-eu-2", "gw-eu-1"):
        incarnation = system.core(name) if name.startswith("core") else system.incarnation(name)
        await incarnation.start()
        assert incarnation.revocations.killed("acme")
        await let_pass(5.0)
        assert told(incarnation) == []
    for _ in range(2):
        await core.crash()
        again = core = system.core("core-eu-1")
        await again.start()
        for raw in (held(current), held(ended), lifted(ended)):
            again.switch.issue(
                again.switch.verify(raw)
            )  # by whoever had no answer from the incarnation before
        await let_pass(5.0)
        assert told(again) == []
    again.switch.issue(again.switch.verify(lifted(current)))
    kinds = [kind for kind, _ in told(again, EventType.HOLD_LIFTED, EventType.HOLD_PLACED)]
    assert kinds == [EventType.HOLD_LIFTED]


async def test_no_order_is_in_the_name_of_somebody_retired_who_signed_beside_others(system):
    """Whoever has the old key of ``security``, first by name, puts it under others' statements."""
    core = system.core("core-eu-1", rosters=rosters())
    await core.start()
    core.me.rosters.take(signed(without("security")))
    stolen, one = identity("security"), hold()
    core.switch.learn(held(one))
    for raw in (held(one, "security-2"), lifted(one, "security-2")):
        core.switch.issue(core.switch.verify(encode(stolen.countersign(read_signed(raw)))))
    assert [fields["actor"] for _, fields in told(core, EventType.HOLD_LIFTED)] == ["security-2"]
    (view,) = (await core.kills.holds.page(HoldPageQuery(after=bytes(16), everything=True))).holds
    assert (view.issuer, view.lifted_by) == ("security-2", "security-2")


async def test_who_brings_a_signed_hold_or_lift_to_the_stream_does_not_hide_its_signer(core):
    one = hold(reason="by whoever has it")
    subject = subjects.control_hold("eu", one.scope, one.id)
    core.stream.store(subject, held(one, "security-2"))
    await until(lambda: core.count(EventType.HOLD_PURGED))
    core.stream.store(
        subject, lift(identity("security"), held(one, "security-2"), issued_ms=9, reason="over")
    )
    await until(lambda: core.count(EventType.HOLD_RELEASED))
    assert [(kind, one["actor"], one["detail"]) for kind, one in told(core)] == [
        (EventType.HOLD_PURGED, "security-2", "1 tenant; cause operator: by whoever has it"),
        (EventType.HOLD_RELEASED, "security", "cause operator: over"),
    ]


async def test_an_order_is_recorded_once_also_where_its_hold_came_before_it(core):
    one, other = hold(), hold()
    for raw in (held(one), lifted(one), lifted(other)):
        core.switch.learn(raw)
    for raw in (held(one), lifted(one), held(other), lifted(other)) * 2:
        core.switch.issue(core.switch.verify(raw))
    orders = told(core, EventType.HOLD_PLACED, EventType.HOLD_LIFTED)
    assert [(kind, fields["hold"]) for kind, fields in orders] == [
        (kind, each.id)
        for each in (one, other)
        for kind in (EventType.HOLD_PLACED, EventType.HOLD_LIFTED)
    ]
    assert {fields["actor"] for _, fields in orders} == {"security"}


async def test_a_hold_that_is_signed_or_lifted_once_more_stands_as_it_did(core):
    one = hold()
    for raw in (held(one), held(one, "security-2"), lifted(one), lifted(one, "security-2")):
        core.switch.learn(raw)
    core.switch.learn(encode(identity("security-2").countersign(read_signed(held(one)))))
    kinds = [kind for kind, _ in told(core, EventType.HOLD_PURGED, EventType.HOLD_RELEASED)]
    assert kinds == [EventType.HOLD_PURGED, EventType.HOLD_RELEASED]


async def test_what_a_roster_does_to_holds_is_recorded_and_says_so(system):
    core = system.core("core-eu-1", rosters=rosters())
    await core.start()
    ended, current, shared = hold(), hold(), hold()
    raws = [held(ended), lifted(ended, "security-2"), held(current, "security-2")]
    for raw in (*raws, held(shared), held(shared, "security-2")):
        core.switch.learn(raw)
    core.events.clear()
    core.me.rosters.take(signed(removed("security-2")))
    found = {
        fields["hold"]: (kind, fields.get("actor"), fields["detail"]) for kind, fields in told(core)
    }
    assert len(found) == len(told(core, EventType.HOLD_PURGED, EventType.HOLD_RELEASED))
    assert found == {
        ended.id: (
            EventType.HOLD_PURGED,
            "security",
            "1 tenant; its lift does not count any more; cause operator: drill",
        ),
        current.id: (
            EventType.HOLD_RELEASED,
            None,
            "by the roster, no signature of the hold counts",
        ),
    }
