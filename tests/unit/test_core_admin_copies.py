"""Copies of requests: what is on record was asked once, then, there, and by that operator."""

from __future__ import annotations

import asyncio

import pytest
from kcm_runtime.admin_endpoint import ANSWER_MAX, ASKED_MAX
from kcm_schemas import subjects
from kcm_schemas.admin.requests import PutStatement
from kcm_schemas.admin.tenants import TenantQuery
from kcm_schemas.codes import Code
from kcm_schemas.signed import Kind

from tests.unit.admin_requests import ask, place, put, put_all, request
from tests.unit.core_rig import LINK, TENANT, VERIFIER, World, signed


@pytest.fixture
async def core(tmp_path):
    """A Core with a link, a tenant and a service."""
    made = World(tmp_path).core()
    assert await put_all(made) == [Code.OK] * 3
    made.events.clear()
    return made


def tenant_put(core, record=TENANT, **settings):
    statement = PutStatement(statement=signed(Kind.TENANT, record))
    return request(core, "tenant", "put", statement, **settings)


def told(core, kind):
    """Who is on record for a kind of event, with which code, and how often."""
    core.admin.close()
    found = [fields for one, fields in core.events if one == kind]
    return [(f.get("actor"), f.get("code", Code.OK), f.get("count", 1)) for f in found]


async def test_an_old_request_is_nothing_that_its_operator_did_now(core):
    raw = tenant_put(core)
    core.world.clock.now += 365 * 86400
    for _ in range(100):
        assert (await ask(core, raw, "tenant", "put"))[0] is Code.DEADLINE_EXCEEDED
    assert told(core, "trust.refused") == [(None, Code.FORBIDDEN, 1), (None, Code.FORBIDDEN, 99)]
    assert {kind for kind, _ in core.events} == {"trust.refused"}


async def test_nor_is_one_that_was_signed_for_another_place(core):
    raw = tenant_put(core)
    assert (await ask(core, raw, "hold", "put"))[0] is Code.FORBIDDEN
    elsewhere = tenant_put(core, region="us")
    assert (await ask(core, elsewhere, "tenant", "put"))[0] is Code.FORBIDDEN
    named = subjects.admin_at("eu", "tenant", "put", "core-eu-2")
    reply, _ = VERIFIER.admin_reply(await core.admin.handle(named, raw))
    assert reply.code is Code.FORBIDDEN
    assert told(core, "trust.refused") == [(None, Code.FORBIDDEN, 1), (None, Code.FORBIDDEN, 2)]
    assert {kind for kind, _ in core.events} == {"trust.refused"}


async def test_a_change_is_done_and_recorded_once_and_a_copy_has_its_answer(core):
    raw = tenant_put(core)
    first = await core.admin.handle(place(core, "tenant", "put"), raw)
    for _ in range(200):
        assert await core.admin.handle(place(core, "tenant", "put"), raw) == first
    assert told(core, "admin.tenant-put") == [("admin", Code.OK, 1)]
    assert told(core, "tenant.create") == [(None, Code.OK, 1)]
    statement = PutStatement(statement=signed(Kind.LINK, LINK))
    raw = request(core, "link", "put", statement)
    assert (await ask(core, raw, "link", "put"))[0] is Code.OK
    asked = len(core.world.unsealer.calls)
    for _ in range(10):
        assert (await ask(core, raw, "link", "put"))[0] is Code.OK
    assert len(core.world.unsealer.calls) == asked, "the customer's key is left in peace"


async def test_the_same_order_signed_again_is_another_request(core):
    for _ in range(2):
        assert await put(core, TENANT) is Code.OK
    assert told(core, "admin.tenant-put") == [("admin", Code.OK, 1)] * 2


async def test_a_look_is_counted_once_however_often_it_comes(core):
    raw = request(core, "tenant", "find", TenantQuery(tenant="acme"))
    for _ in range(100):
        assert (await ask(core, raw, "tenant", "find"))[0] is Code.OK
    assert told(core, "admin.tenant-find") == [("admin", Code.OK, 1)]


async def test_a_refusal_is_counted_once_and_may_be_an_answer_later(core):
    """A client sends the same bytes again: whoever refused may know better by then."""
    raw = tenant_put(core, TENANT.model_copy(update={"tenant": "bcme", "link": "b-root"}))
    for _ in range(100):
        assert (await ask(core, raw, "tenant", "put"))[0] is Code.UNKNOWN_LINK
    assert await put(core, LINK.model_copy(update={"link": "b-root"})) is Code.OK
    for _ in range(100):
        assert (await ask(core, raw, "tenant", "put"))[0] is Code.OK
    assert told(core, "admin.tenant-put") == [
        ("admin", Code.UNKNOWN_LINK, 1), ("admin", Code.OK, 1),
    ]  # fmt: skip


async def test_copies_that_come_while_it_is_served_are_served_once(core):
    raw, here = tenant_put(core), place(core, "tenant", "put")
    answers = await asyncio.gather(*(core.admin.handle(here, raw) for _ in range(10)))
    assert len(set(answers)) == 1
    assert told(core, "admin.tenant-put") == [("admin", Code.OK, 1)]


async def test_a_copy_is_executed_by_no_other_core_and_not_after_a_restart(core):
    world = core.world
    raw = request(core, "link", "put", PutStatement(statement=signed(Kind.LINK, LINK)))
    assert (await ask(core, raw, "link", "put"))[0] is Code.OK
    other, again = world.core("core-eu-2"), world.core(core.me.name)
    asked = len(world.unsealer.calls)
    for _ in range(30):
        for here in (place(core, "link", "put"), place(other, "link", "put")):
            reply, _ = VERIFIER.admin_reply(await other.admin.handle(here, raw))
            assert reply.code is Code.FORBIDDEN
        assert (await ask(again, raw, "link", "put"))[0] is Code.UNKNOWN_SESSION
    assert len(world.unsealer.calls) == asked, "the customer's key is left in peace"
    for one in (other, again):
        one.admin.close()
        assert {kind for kind, _ in one.events} == {"trust.refused"}
        assert not any(fields.get("actor") for _, fields in one.events)


@pytest.mark.parametrize(
    ("noun", "verb"), [("link", "put"), ("tenant", "list"), ("hold", "status")]
)
async def test_only_a_hold_or_a_lift_is_for_any_core(core, noun, verb):
    """A request that names no incarnation, or comes to all Cores, is executed by none."""
    body = VERIFIER.admin(request(core, noun, verb, PutStatement(statement=b"")))[0]
    for changes in ({}, {"instance": None}, {"incarnation": None, "instance": None}):
        raw = signed(Kind.ADMIN, body.model_copy(update=changes))
        answer = await core.admin.handle(subjects.admin("eu", noun, verb), raw)
        assert VERIFIER.admin_reply(answer)[0].code is Code.FORBIDDEN
        if changes:
            assert (await ask(core, raw, noun, verb))[0] is Code.FORBIDDEN
    raw = signed(Kind.ADMIN, body.model_copy(update={"incarnation": None}))
    assert (await ask(core, raw, noun, verb))[0] is Code.UNKNOWN_SESSION


async def test_nobody_pushes_out_what_another_operator_asked(core):
    raw = tenant_put(core)
    assert (await ask(core, raw, "tenant", "put"))[0] is Code.OK
    query = TenantQuery(tenant="acme")
    for _ in range(ASKED_MAX + 1):
        look = request(core, "tenant", "find", query, signer="security")
        assert (await ask(core, look, "tenant", "find"))[0] is Code.OK
    assert (await ask(core, raw, "tenant", "put"))[0] is Code.OK
    assert told(core, "admin.tenant-put") == [("admin", Code.OK, 1)]


def test_what_is_remembered_is_bounded_in_bytes():
    assert ASKED_MAX * ANSWER_MAX <= 16 * 1024 * 1024
