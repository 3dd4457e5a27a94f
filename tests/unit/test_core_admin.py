"""Operators' requests: for one place and one time, by one role, and with one effect."""

import asyncio

import pytest
from kcm_killswitch.model.registry_objects import REVISION_STEP_MAX
from kcm_schemas import limits, subjects
from kcm_schemas.admin.requests import Empty, PutStatement
from kcm_schemas.admin.tenants import (
    TenantListQuery,
    TenantPage,
    TenantQuery,
    TenantRow,
)
from kcm_schemas.codec import decode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import Link, Tenant
from kcm_schemas.roster import OperatorRole
from kcm_schemas.signed import Kind

from tests.unit import trust_rig
from tests.unit.admin_requests import FIRST_PAGE, KINDS, ask, place, put, put_all, request, said
from tests.unit.core_rig import LINK, SERVICE, TENANT, VERIFIER, signed


async def test_a_refusal_says_what_is_there_by_name(world):
    core = world.core()
    assert await said(core, TENANT) == (Code.UNKNOWN_LINK, "this region has no link acme-root")
    assert await put_all(core) == [Code.OK] * 3
    for record, text in (
        (LINK.model_copy(update={"uri": "softkey:/x", "revision": 2}), "with another URI"),
        (LINK.model_copy(update={"model": "hyok"}), "with revision 1, and differs in: model"),
        (TENANT.model_copy(update={"region_quorum": "local"}), "differs in: region_quorum"),
        (SERVICE.model_copy(update={"revision": 0}), "with a higher revision than 0"),
    ):
        code, detail = await said(core, record)
        assert code is Code.CONFLICT
        assert detail.startswith(f"the {KINDS[type(record)].value} ")
        assert "exists already" in detail
        assert text in detail


async def test_a_refusal_that_is_asked_for_ten_times_is_recorded_once_with_its_number(world):
    core = world.core()
    for _ in range(10):
        assert (await said(core, TENANT))[0] is Code.UNKNOWN_LINK
    core.admin.close()
    told = [fields for kind, fields in core.events if kind == "admin.tenant-put"]
    assert [(one["code"], one["actor"], one["tenant"], one["count"]) for one in told] == [
        (Code.UNKNOWN_LINK, "admin", "acme", 1), (Code.UNKNOWN_LINK, "admin", "acme", 9),
    ]  # fmt: skip


async def test_one_core_is_asked_by_its_name_and_another_one_does_not_answer_for_it(world):
    core, other = world.core(), world.core("core-eu-2")
    raw = request(core, "tenant", "list", TenantListQuery(after="", limit=2))
    here = subjects.admin_at("eu", "tenant", "list", core.me.name)
    reply, by = VERIFIER.admin_reply(await core.admin.handle(here, raw))
    assert (reply.code, by.instance) == (Code.OK, core.me.name)
    reply, _ = VERIFIER.admin_reply(await other.admin.handle(here, raw))
    assert reply.code is Code.FORBIDDEN


async def test_putting_is_idempotent_through_any_core_and_another_record_is_a_conflict(world):
    one, two = world.core(), world.core("core-eu-2")
    for core in (one, one, two):
        assert await put_all(core) == [Code.OK] * 3
    for other in (
        LINK.model_copy(update={"uri": "softkey:/keys/mallory", "revision": 2}),
        LINK.model_copy(update={"model": "hyok"}),
        TENANT.model_copy(update={"region_quorum": "local"}),
        TENANT.model_copy(update={"link": "other", "revision": 2}),
        SERVICE.model_copy(update={"revision": 0}),
    ):
        assert await put(one, other) in {Code.CONFLICT, Code.UNKNOWN_LINK}
    assert one.registry.tenant("acme") == TENANT
    assert one.registry.link("acme-root") == LINK
    assert await one.loader.service_key("acme", "crm", 0)


async def test_an_operator_who_left_does_not_block_a_name_for_ever(world):
    """What is stored and not believed any more is as good as absent: it may be put again."""
    core = world.core()
    assert await put_all(core) == [Code.OK] * 3
    stored = world.bus.stream.stored
    for record in (LINK, TENANT, SERVICE):
        names = [record.tenant] if isinstance(record, Tenant) else (
            [record.link] if isinstance(record, Link) else [record.tenant, record.service]
        )  # fmt: skip
        kind = KINDS[type(record)]
        subject = subjects.bucket_subject(subjects.REGISTRY_BUCKET, kind.value, *names)
        stored[subject] = (stored[subject][0], signed(kind, record, "stranger"))
    again = world.core()
    assert await put_all(again) == [Code.OK] * 3
    assert again.registry.tenant("acme") == TENANT


async def test_the_same_record_put_by_somebody_else_at_the_same_moment(world):
    core, other = world.core(), world.core("core-eu-2")
    done = []

    async def overtake(operation, subject):
        if operation == "put" and "registry" in subject and not done:
            done.append(subject)
            assert await put(other, LINK) is Code.OK

    world.bus.stream.before = overtake
    assert await put(core, LINK) is Code.OK
    assert len(done) == 1


async def test_a_request_that_is_repeated_meanwhile_is_served_once_and_answered_twice(world):
    core = world.core()
    raw = request(core, "link", "put", PutStatement(statement=signed(Kind.LINK, LINK)))
    first, second = await asyncio.gather(
        ask(core, raw, "link", "put"), ask(core, raw, "link", "put")
    )
    assert first == second
    assert first[0] is Code.OK
    events = [event for event in core.events if event[0] == "admin.link-put"]
    assert len(events) == 1
    assert (await ask(core, raw, "link", "put"))[0] is Code.OK


async def test_a_request_is_for_one_place(world):
    core = world.core()
    statement = PutStatement(statement=signed(Kind.LINK, LINK))
    elsewhere = request(core, "link", "put", statement, region="us")
    assert (await ask(core, elsewhere, "link", "put"))[0] is Code.FORBIDDEN
    here = request(core, "link", "put", statement)
    for noun, verb in (("tenant", "put"), ("link", "show")):
        assert (await ask(core, here, noun, verb))[0] is Code.FORBIDDEN
    assert not world.bus.stream.stored


@pytest.mark.parametrize(
    ("ahead_ms", "code"),
    [
        (0, Code.DEADLINE_EXCEEDED),
        (-1, Code.DEADLINE_EXCEEDED),
        (limits.DEADLINE_MAX_MS + 1, Code.MALFORMED),
    ],
)
async def test_a_request_is_for_one_time(world, ahead_ms, code):
    assert await put(world.core(), LINK, ahead_ms=ahead_ms) is code
    assert not world.bus.stream.stored


async def test_roles_of_the_sender_and_of_the_author_both_count(world):
    core = world.core()
    assert await put(core, LINK, signer="security") is Code.FORBIDDEN
    assert await put(core, LINK, signer="nobody") is Code.FORBIDDEN
    assert await put(core, LINK, author="security") is Code.FORBIDDEN
    assert await put(core, LINK, author="core-eu") is Code.FORBIDDEN
    assert not world.bus.stream.stored


ADMIN, SECURITY = frozenset({OperatorRole.ADMIN}), frozenset({OperatorRole.SECURITY})
ANY = frozenset(OperatorRole)

ROLES = {
    ("tenant", "put"): ADMIN, ("tenant", "list"): ANY, ("tenant", "find"): ANY,
    ("tenant", "show"): ANY,
    ("link", "put"): ADMIN, ("link", "list"): ANY,
    ("service", "put"): ADMIN, ("service", "list"): ANY,
    ("app", "put"): ADMIN | SECURITY, ("app", "list"): ANY, ("app", "show"): ANY,
    ("hold", "put"): SECURITY, ("hold", "status"): ANY, ("hold", "show"): ANY,
    ("hold", "list"): ANY, ("hold", "preview"): ANY, ("hold", "export"): ANY,
    ("roster", "show"): ANY, ("roster", "put"): ANY, ("roster", "endorsements"): ANY,
    ("roster", "listed"): ANY, ("roster", "signed"): ANY,
    ("registry", "show"): ANY, ("registry", "adopt"): ADMIN,
    ("key", "status"): ANY,
}  # fmt: skip
"""Who may send each request; the signature of a statement in it has rules of its own."""


def test_every_request_takes_these_roles_and_no_others(world):
    assert world.core().admin.served == ROLES


async def test_a_hold_is_taken_from_an_operator_with_the_role_security_only(world):
    order = PutStatement(statement=signed(Kind.HOLD, trust_rig.hold(), "security"))
    core = world.core()
    raw = request(core, "hold", "put", order, signer="admin")
    answer = await core.admin.handle(subjects.admin("eu", "hold", "put"), raw)
    reply, _ = VERIFIER.admin_reply(answer)
    assert reply.code is Code.FORBIDDEN
    assert reply.detail == "hold put takes the role security; your roles: admin"


@pytest.mark.parametrize("signer", ["stranger", "core-eu", "gw-eu", "root"])
async def test_who_is_no_operator_gets_no_signature(world, signer):
    core = world.core()
    raw = request(core, "tenant", "list", FIRST_PAGE, signer=signer)
    for body in (raw, raw[:-1], b"", b"\xc1" * 50):
        with pytest.raises(KcmError) as info:
            await core.admin.handle(place(core, "tenant", "list"), body)
        assert info.value.code is Code.FORBIDDEN


async def test_an_unknown_verb_and_a_payload_of_another_kind(world):
    core = world.core()
    raw = request(core, "tenant", "delete", Empty())
    assert (await ask(core, raw, "tenant", "delete"))[0] is Code.MALFORMED
    raw = request(core, "tenant", "show", Empty())
    assert (await ask(core, raw, "tenant", "show"))[0] is Code.MALFORMED


async def test_a_statement_of_one_kind_is_not_taken_for_another(world):
    core = world.core()
    statement = PutStatement(statement=signed(Kind.TENANT, TENANT))
    raw = request(core, "link", "put", statement)
    assert (await ask(core, raw, "link", "put"))[0] is Code.FORBIDDEN


async def test_what_has_to_be_there_first(world):
    core = world.core()
    assert await put(core, TENANT) is Code.UNKNOWN_LINK
    assert await put(core, SERVICE) is Code.UNKNOWN_TENANT
    assert await put(core, LINK) is Code.OK
    assert await put(core, TENANT.model_copy(update={"regions": ["us"]})) is Code.WRONG_REGION
    bad = LINK.model_copy(update={"link": "bad", "uri": "http://somewhere/?secret"})
    assert await put(core, bad) is Code.MALFORMED


async def test_a_core_that_has_not_heard_of_a_tenant_asks_before_it_says_so(world):
    assert await put_all(world.core()) == [Code.OK] * 3
    other = world.core("core-eu-2")
    raw = request(other, "tenant", "find", TenantQuery(tenant="acme"), signer="security")
    code, payload = await ask(other, raw, "tenant", "find")
    assert code is Code.OK
    found = decode(TenantRow, payload)
    assert (found.tenant, found.core) == ("acme", "core-eu-2")
    other.kill()
    raw = request(other, "tenant", "list", FIRST_PAGE, signer="security")
    _, payload = await ask(other, raw, "tenant", "list")
    assert [one.state for one in decode(TenantPage, payload).tenants] == ["killed"]
    raw = request(other, "tenant", "find", TenantQuery(tenant="bcme"))
    assert (await ask(other, raw, "tenant", "find"))[0] is Code.UNKNOWN_TENANT


@pytest.mark.parametrize("record", [LINK, TENANT, SERVICE], ids=["link", "tenant", "service"])
async def test_an_entry_that_was_acknowledged_and_is_not_there_is_not_recorded(world, record):
    """The broker's disk was damaged: it takes messages under some subjects and forgets them."""
    core = world.core()
    for needed in (LINK, TENANT, SERVICE):
        if needed is record:
            break
        assert await put(core, needed) is Code.OK
    key = {
        "link": ["link", LINK.link],
        "tenant": ["tenant", TENANT.tenant],
        "service": ["service", SERVICE.tenant, SERVICE.service],
    }[KINDS[type(record)].value]
    subject = subjects.bucket_subject(subjects.REGISTRY_BUCKET, *key)
    world.bus.stream.forgets.add(subject)
    assert await put(core, record) is Code.UNAVAILABLE
    world.bus.stream.forgets.clear()  # somebody restarted it
    assert await put(core, record) is Code.OK
    assert subject in world.bus.stream.stored


async def test_nobody_uses_up_the_revisions_of_a_record(world):
    """A stolen admin key would sign the highest one: whoever owns the tenant could not go on."""
    core = world.core()
    await put_all(core)
    most = TENANT.revision + REVISION_STEP_MAX
    burnt = TENANT.model_copy(update={"revision": 2**63 - 1})
    text = f"revision {burnt.revision} is too far above the last one; take at most {most}"
    assert await said(core, burnt) == (Code.MALFORMED, text)
    assert core.registry.tenant("acme") == TENANT
