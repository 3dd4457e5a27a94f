"""Operators' looks: each is on record, and a hundred at one thing are not a hundred events."""

from __future__ import annotations

import asyncio

import pytest
from kcm_core.api.read_only import LOOKS
from kcm_core.api.request_events import requested, type_of
from kcm_runtime.audit.pacing import EVERY_S
from kcm_runtime.audit.repeat_counter import KINDS_MAX, REST, Repeats
from kcm_schemas.admin.holds import HoldQuery
from kcm_schemas.admin.requests import AdminRequest, PutStatement
from kcm_schemas.admin.tenants import TenantQuery
from kcm_schemas.audit import EventType
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code

from tests.fakes.virtual import let_pass
from tests.unit.core_rig import World
from tests.unit.switch.statements import held, hold, lifted

STATUS = EventType.ADMIN_HOLD_STATUS


@pytest.fixture
def events():
    return []


@pytest.fixture
def looks(events):
    return Repeats(lambda kind, **fields: events.append((kind, fields)))


def asked(noun, verb, payload=b""):
    return AdminRequest(
        region="eu", noun=noun, verb=verb, instance="core-eu", incarnation=bytes(16),
        request_id=bytes(16), deadline_ms=1, payload=payload,
    )  # fmt: skip


async def test_the_first_look_is_told_at_once_and_the_others_with_their_number(looks, events):
    for _ in range(100):
        looks.record(STATUS, "alice", {"hold": b"h" * 16})
    assert events == [(STATUS, {"hold": b"h" * 16, "actor": "alice", "count": 1})]
    await let_pass(EVERY_S + 1)
    assert events[1:] == [(STATUS, {"hold": b"h" * 16, "actor": "alice", "count": 99})]
    await let_pass(EVERY_S + 1)
    assert len(events) == 2, "nobody looked any more"


async def test_others_and_looks_at_something_else_are_told_by_themselves(looks, events):
    for operator in ("alice", "bob"):
        for hold_id in (b"h" * 16, b"i" * 16):
            looks.record(STATUS, operator, {"hold": hold_id})
    assert len(events) == 4


async def test_a_refusal_that_is_asked_for_again_and_again_is_one_event_with_its_number(
    looks, events
):
    put, what = EventType.ADMIN_TENANT_PUT, {"tenant": "acme"}
    for _ in range(10):
        looks.record(put, "alice", what, Code.UNAVAILABLE, "no baseline")
    first = what | {"actor": "alice", "code": Code.UNAVAILABLE, "detail": "no baseline"}
    assert events == [(put, first | {"count": 1})]
    looks.record(put, "alice", what, Code.CONFLICT, "is there")
    looks.record(put, "alice", what, Code.UNAVAILABLE, "another reason")
    assert len(events) == 3, "another refusal is told by itself"
    await let_pass(EVERY_S + 1)
    assert events[3:] == [(put, first | {"count": 9})]


async def test_what_was_counted_is_told_at_the_end(looks, events):
    for _ in range(3):
        looks.record(STATUS, "alice", {})
    looks.close()
    assert [fields["count"] for _, fields in events] == [1, 2]
    assert not [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]


async def test_an_operator_who_looks_at_too_much_multiplies_no_event_of_anybody(looks, events):
    find = EventType.ADMIN_TENANT_FIND
    for n in range(10 * KINDS_MAX):
        looks.record(find, "mallory", {"tenant": f"t{n}"})
    assert len(events) == KINDS_MAX + 1
    rest = {"actor": "mallory", "detail": REST}
    assert events[-1] == (find, rest | {"count": 1})
    events.clear()
    for _ in range(100):
        looks.record(STATUS, "alice", {"hold": b"h" * 16})
        looks.record(find, "alice", {"tenant": "t1"})
    assert [(kind, fields["count"]) for kind, fields in events] == [(STATUS, 1), (find, 1)]
    events.clear()
    looks.close()
    assert (find, rest | {"count": 9 * KINDS_MAX - 1}) in events
    assert len(events) == 3


def test_the_type_of_a_request_is_one_of_those_that_there_are():
    assert type_of(asked("hold", "put")) is EventType.ADMIN_HOLD_PUT
    for noun, verb in (("hold", "purged"), ("x" * 60, "y" * 60)):
        assert type_of(asked(noun, verb)) is EventType.ADMIN_UNKNOWN
    assert requested(asked("hold", "purged")) == {"target": "hold purged"}


async def test_every_verb_that_a_core_serves_has_a_type_of_its_own(tmp_path):
    core = World(tmp_path).core()
    for noun, verb in sorted(core.admin.served):
        assert type_of(asked(noun, verb)) is not EventType.ADMIN_UNKNOWN, (noun, verb)
    assert all(one.value.startswith("admin.") for one in LOOKS)


def test_an_event_says_what_a_request_is_about():
    one = hold()
    about = {"hold": one.id, "target": "tenant acme"}
    for raw in (held(one), lifted(one)):
        assert requested(asked("hold", "put", encode(PutStatement(statement=raw)))) == about
    query = encode(HoldQuery(hold_id=one.id))
    assert requested(asked("hold", "status", query)) == {"hold": one.id}
    assert requested(asked("tenant", "find", encode(TenantQuery(tenant="acme")))) == {
        "tenant": "acme"
    }


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x81\xa9statement\xc4\x01x"])
def test_what_is_not_well_formed_says_nothing(payload):
    assert requested(asked("hold", "put", payload)) == {}
