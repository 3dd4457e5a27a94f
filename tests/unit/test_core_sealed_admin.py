"""Operators' requests in sessions: each is executed once, by one incarnation, and sealed."""

from __future__ import annotations

import pytest
from kcm.errors import Forbidden, Unavailable
from kcm_schemas import data_subjects, subjects
from kcm_schemas.admin.requests import PutStatement
from kcm_schemas.admin.tenants import TenantQuery
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.session import decode_sealed_reply
from kcm_schemas.signed import Kind
from kcm_sessions.sessions import OPERATORS

from tests.unit.admin_requests import put_all, request
from tests.unit.core_rig import LINK, URI, World, signed
from tests.unit.operator_session_rig import Desk, deliver, moved
from tests.unit.roster_changes import signed_roster, without

PUT_LINK = PutStatement(statement=signed(Kind.LINK, LINK))
FIND = TenantQuery(tenant="acme")


@pytest.fixture
async def core(tmp_path):
    """A Core with a link, a tenant and a service."""
    made = World(tmp_path).core()
    assert await put_all(made) == [Code.OK] * 3
    made.events.clear()
    return made


async def code_of(core, subject, body):
    try:
        decode_sealed_reply(await deliver(core, subject, body))
    except KcmError as error:
        return error.code
    return Code.OK


async def test_a_request_is_executed_once_by_one_incarnation_whatever_is_copied(core):
    world, desk = core.world, Desk(core)
    assert await desk.ask("link", "put", PUT_LINK) == (Code.OK, "core-eu")
    ((subject, body),) = desk.captured()
    other, again = world.core("core-eu-2"), world.core("core-eu")
    asked = len(world.unsealer.calls)
    for _ in range(30):
        assert await code_of(core, subject, body) is Code.REPLAYED
        assert await code_of(again, subject, body) is Code.UNKNOWN_SESSION
        assert await code_of(other, moved(subject, other), body) is Code.UNKNOWN_SESSION
        assert await code_of(other, subject, body) is Code.MALFORMED
    for begun, ticket in desk.heard:  # and its ticket opens no other session
        if begun.endswith(data_subjects.OPEN_OPERATOR):
            assert {await code_of(one, begun, ticket) for one in (core, again)} == {
                Code.UNKNOWN_SESSION
            }
    assert len(world.unsealer.calls) == asked, "the customer's key is left in peace"
    for one in (core, other, again):
        one.sealed_admin.close()
    assert [kind for kind, _ in core.events].count("admin.link-put") == 1
    assert not [kind for kind, _ in other.events + again.events if kind != "trust.refused"]


async def test_nothing_of_a_request_and_its_answer_is_heard_in_clear(core):
    desk = Desk(core)
    assert (await desk.ask("link", "put", PUT_LINK))[0] is Code.OK
    assert (await desk.ask("tenant", "find", FIND))[0] is Code.OK
    heard = [*[body for _, body in desk.heard], *desk.answers]
    assert len(desk.captured()) == 2
    assert not [raw for raw in heard if URI.encode() in raw or LINK.link.encode() in raw]


async def test_an_unsealed_request_to_one_core_is_not_executed(core):
    raw = request(core, "link", "put", PUT_LINK)
    here = subjects.admin_at("eu", "link", "put", "core-eu")
    asked = len(core.world.unsealer.calls)
    assert await code_of(core, here, raw) is Code.MALFORMED
    assert len(core.world.unsealer.calls) == asked
    assert not core.events


async def test_a_request_of_another_noun_or_verb_than_was_sealed_does_not_open(core):
    desk = Desk(core)
    assert (await desk.ask("tenant", "find", FIND))[0] is Code.OK
    ((_, body),) = desk.captured()
    other = subjects.admin_at("eu", "tenant", "show", "core-eu")
    assert await code_of(core, other, body) is Code.REPLAYED
    desk.loses = True
    with pytest.raises(Unavailable):
        await desk.ask("tenant", "find", FIND)
    subject, body = desk.captured()[-1]
    assert await code_of(core, other, body) is Code.UNKNOWN_SESSION
    assert await code_of(core, subject, body) is Code.OK


async def test_what_another_operator_signed_is_not_executed_in_a_session(core):
    desk = Desk(core)
    asked = len(core.world.unsealer.calls)
    with pytest.raises(Forbidden, match="another operator signed"):
        await desk.ask("link", "put", PUT_LINK, signer="security")
    assert len(core.world.unsealer.calls) == asked
    assert not [kind for kind, _ in core.events if kind != "trust.refused"]


@pytest.mark.parametrize(
    ("name", "key"),
    [("admin", "stranger"), ("stranger", "stranger"), ("core-eu", "core-eu"), ("gw-eu", "gw-eu")],
)
async def test_only_an_operator_on_the_roster_opens_a_session(core, name, key):
    with pytest.raises(Unavailable, match=r"core-eu refuses without a seal \(forbidden\)"):
        await Desk(core, name=name, key=key).ask("tenant", "find", FIND)
    assert len(core.keys.operator_sessions) == 0


async def test_sessions_of_an_operator_end_when_the_roster_retires_it(core):
    desk, other = Desk(core), Desk(core, name="security")
    for one in (desk, other):
        assert (await one.ask("tenant", "find", FIND))[0] is Code.OK
    assert len(core.keys.operator_sessions) == 2
    core.me.rosters.take(signed_roster(without("admin")))
    assert len(core.keys.operator_sessions) == 1
    with pytest.raises(Unavailable):
        await desk.ask("tenant", "find", FIND)
    # The other session is open still; the tenant was put by the retired one, and does not count.
    assert (await other.ask("tenant", "find", FIND))[0] is Code.UNKNOWN_TENANT


async def test_sessions_are_bounded_and_their_memory_ends_with_the_core(core):
    desks = [Desk(core) for _ in range(OPERATORS.per_caller + 2)]
    for desk in desks:
        assert (await desk.ask("tenant", "find", FIND))[0] is Code.OK
    assert len(core.keys.operator_sessions) == OPERATORS.per_caller
    assert (await desks[0].ask("tenant", "find", FIND))[0] is Code.OK  # it opens another one
    core.keys.close()
    assert (len(core.keys.operator_sessions), core.keys.slots.size) == (0, 0)
    with pytest.raises(KcmError):
        await desks[0].ask("tenant", "find", FIND)
