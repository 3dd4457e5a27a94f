"""An order of a hold or lift on record: once, however often a client that watches repeats it."""

from __future__ import annotations

import pytest
from kcm_core.api.admin_rules import CoreRules
from kcm_core.assembly.admin import SECURITY
from kcm_runtime.admin_endpoint import REPEATED, AdminEndpoint
from kcm_runtime.clock import SystemRandomness
from kcm_runtime.host import Host
from kcm_schemas.admin.requests import Empty, PutStatement
from kcm_schemas.audit import EventType
from kcm_schemas.codec import decode
from kcm_schemas.codes import Code
from kcm_schemas.signed import Kind

from tests.unit import trust_rig
from tests.unit.admin_requests import ask, request
from tests.unit.core_rig import World, signed

HOLD = trust_rig.hold()
PLACE = signed(Kind.HOLD, HOLD, "security")
LIFT = signed(Kind.LIFT, trust_rig.lift(HOLD, "security"), "security")


@pytest.fixture
def core(tmp_path):
    """A Core of the rig, whose kill switch takes a statement without a stream."""
    core = World(tmp_path).core()

    async def put(order):
        core.switch.issue(core.switch.verify(decode(PutStatement, order.payload).statement))
        return Empty()

    host = Host(
        core.me,
        core.world.clock,
        SystemRandomness(),
        lambda kind, **fields: core.events.append((kind, fields)),
    )
    core.rules = CoreRules(core.me, core.baseline, core.revocations)
    core.admin = AdminEndpoint(host, "admin", core.rules)
    core.admin.serve("hold", {"put": put}, SECURITY)
    return core


async def order(core, statement, signer="security"):
    raw = request(core, "hold", "put", PutStatement(statement=statement), signer=signer)
    return (await ask(core, raw, "hold", "put"))[0]


def orders(core):
    """Operator, code, number and detail of the orders on record."""
    core.admin.close()
    return [
        (f["actor"], f.get("code", Code.OK), f.get("count", 1), f.get("detail", ""))
        for kind, f in core.events
        if kind == EventType.ADMIN_HOLD_PUT
    ]


FIRST = ("security", Code.OK, 1, "")


@pytest.mark.parametrize("statement", [PLACE, LIFT], ids=["hold", "lift"])
async def test_an_order_is_on_record_once_and_its_repetitions_are_counted(core, statement):
    for _ in range(90):
        assert await order(core, statement) is Code.OK
    assert orders(core) == [
        FIRST,
        ("security", Code.OK, 1, REPEATED),
        ("security", Code.OK, 88, REPEATED),
    ]


async def test_the_lift_of_a_known_hold_is_an_order_of_its_own(core):
    for statement in (PLACE, LIFT, PLACE):
        assert await order(core, statement) is Code.OK
    assert orders(core) == [FIRST, FIRST, ("security", Code.OK, 1, REPEATED)]


async def test_a_hold_that_came_another_way_is_known(core):
    core.switch.issue(core.switch.verify(PLACE))
    assert await order(core, PLACE) is Code.OK
    assert orders(core) == [("security", Code.OK, 1, REPEATED)]


async def test_a_refused_repetition_has_the_text_of_the_refusal(core):
    assert await order(core, PLACE) is Code.OK
    assert await order(core, PLACE, signer="admin") is Code.FORBIDDEN
    assert orders(core)[1:] == [
        ("admin", Code.FORBIDDEN, 1, "hold put takes the role security; your roles: admin")
    ]


@pytest.mark.parametrize("statement", [b"", b"\xc1", signed(Kind.LINK, HOLD), PLACE[:-1]])
async def test_what_is_no_order_is_no_repetition(core, statement):
    core.switch.issue(core.switch.verify(PLACE))
    raw = request(core, "hold", "put", PutStatement(statement=statement), signer="security")
    event = core.rules.event(core.me.verifier.admin(raw)[0])
    assert not event.repeats
