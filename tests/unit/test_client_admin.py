"""Operators' requests, against Cores in memory and brokers that forge replies."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from kcm._internal import statements
from kcm._internal.admin import Admin
from kcm._internal.client_context import NotLetIn
from kcm._internal.retry import AGAIN_S
from kcm.errors import (
    Busy,
    Conflict,
    Unavailable,
    Unreached,
    UntrustedReply,
)
from kcm_runtime.config import BusAddress
from kcm_schemas.admin.holds import BlastRadius, PreviewQuery
from kcm_schemas.admin.key_budget import KeyUse
from kcm_schemas.admin.requests import AdminReply, AdminRequest, Empty, PutStatement
from kcm_schemas.admin.tenants import TenantPage, TenantQuery
from kcm_schemas.auditor import TailPage
from kcm_schemas.codec import Message, decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.signed import Kind

from tests.fakes.client import FakeSystem
from tests.fakes.refusals import failure

KEY_USE = KeyUse(
    core="core-eu", region="eu", state="free", since_ms=0, in_use=3, most=594, unloaded=0,
    unloaded_all=0, unloaded_ms=0,
)  # fmt: skip


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    return FakeSystem(tmp_path)


@pytest.fixture
def admin(system: FakeSystem) -> Admin:
    return Admin(system.context(), opener=system.open, around=system.clock.around())


async def test_the_answer_of_another_core_than_the_one_asked_is_not_believed(
    system: FakeSystem, admin: Admin
) -> None:
    core = system.cores["eu"]
    core.handlers["key", "status"] = lambda *_: KEY_USE
    assert await admin.key_use("eu", "core-eu") == KEY_USE
    assert core.subjects == ["kcm.v1.eu.admin.key.status.core-eu"]
    with pytest.raises(Unavailable, match="no other Core in region eu"):
        await admin.key_use("eu", "core-eu-2")
    other = system.identities["core-us"]
    core.forge = lambda reply, request: encode(other.sign(Kind.ADMIN_REPLY, reply))
    with pytest.raises(UntrustedReply, match="its signer is in region us"):
        await admin.key_use("eu", "core-eu")


async def test_a_put_carries_what_the_operator_signed(system: FakeSystem, admin: Admin) -> None:
    got: list[bytes] = []

    def put(request: AdminRequest, operator: str) -> Message:
        assert operator == "alice"
        got.append(decode(PutStatement, request.payload).statement)
        return Empty()

    system.everywhere("tenant", "put", put)
    raw = statements.tenant(
        admin.identity, "acme", link="acme-root", regions=["us", "eu"], region_quorum="all"
    )
    await admin.put("eu", "tenant", raw)
    await admin.put("us", "tenant", raw)
    assert got == [raw, raw]
    tenant = system.verifier.tenant(raw)
    assert (tenant.regions, tenant.revision) == (["eu", "us"], 1)
    again = statements.tenant(
        admin.identity, "acme", link="acme-root", regions=["eu", "us"], region_quorum="all"
    )
    assert again == raw


async def test_a_signed_refusal_is_raised(system: FakeSystem, admin: Admin) -> None:
    def refuse(request: AdminRequest, operator: str) -> Message:
        raise KcmError(Code.CONFLICT, "another record has this name")

    system.everywhere("tenant", "show", refuse)
    with pytest.raises(Conflict, match="another record"):
        await admin.tenant("eu", "acme")
    assert len(system.cores["eu"].requests) == 1


async def test_what_passes_is_asked_again_under_a_new_id(system: FakeSystem, admin: Admin) -> None:
    answers = iter([Code.BUSY, Code.UNAVAILABLE, Code.OK])

    def listing(request: AdminRequest, operator: str) -> Message:
        code = next(answers)
        if code is not Code.OK:
            raise KcmError(code)
        return TenantPage(tenants=[], total=0, more=False)

    system.everywhere("tenant", "list", listing)
    assert await admin.tenants("us") == ([], 0)
    assert len({request.request_id for request in system.cores["us"].requests}) == 3


async def test_a_request_whose_core_died_is_asked_again_at_once_under_the_same_id(
    system: FakeSystem, admin: Admin
) -> None:
    nobody = TenantPage(tenants=[], total=0, more=False)
    system.everywhere("tenant", "list", lambda request, operator: nobody)
    core = system.cores["eu"]
    core.dying = 1
    async with asyncio.timeout(AGAIN_S * 2):
        assert await admin.tenants("eu") == ([], 0)
    first_one, again = core.requests
    assert first_one == again


def by_auditor(system: FakeSystem, reply: AdminReply) -> bytes:
    return encode(system.identities["auditor-eu"].sign(Kind.ADMIN_REPLY, reply))


def by_other_region(system: FakeSystem, reply: AdminReply) -> bytes:
    return encode(system.identities["core-us"].sign(Kind.ADMIN_REPLY, reply))


def by_nobody(system: FakeSystem, reply: AdminReply) -> bytes:
    right = system.identities["core-eu"].sign(Kind.ADMIN_REPLY, reply)
    forged = [one.model_copy(update={"signature": bytes(64)}) for one in right.signatures]
    return encode(right.model_copy(update={"signatures": forged}))


def as_other_kind(system: FakeSystem, reply: AdminReply) -> bytes:
    return encode(system.identities["core-eu"].sign(Kind.RECEIPT, reply))


def to_other_request(system: FakeSystem, reply: AdminReply) -> bytes:
    other = reply.model_copy(update={"request": bytes(32)})
    return encode(system.identities["core-eu"].sign(Kind.ADMIN_REPLY, other))


def with_other_payload(system: FakeSystem, reply: AdminReply) -> bytes:
    other = reply.model_copy(update={"payload": encode(TenantQuery(tenant="x"))})
    return encode(system.identities["core-eu"].sign(Kind.ADMIN_REPLY, other))


@pytest.mark.parametrize(
    "forge",
    [
        by_auditor,
        by_other_region,
        by_nobody,
        as_other_kind,
        to_other_request,
        with_other_payload,
    ],
)
async def test_a_broker_cannot_make_an_answer(
    system: FakeSystem,
    admin: Admin,
    forge: Callable[[FakeSystem, AdminReply], bytes],
) -> None:
    system.everywhere(
        "tenant", "list", lambda request, operator: TenantPage(tenants=[], total=0, more=False)
    )
    system.cores["eu"].forge = lambda reply, request: forge(system, reply)
    with pytest.raises(UntrustedReply):
        await admin.tenants("eu")
    assert len(system.cores["eu"].requests) == 1


async def test_an_unsigned_answer_in_clear_only_means_that_another_instance_may_help(
    system: FakeSystem, admin: Admin
) -> None:
    page = TailPage(auditor="auditor-eu", oldest=1, entries=[])
    system.everywhere("auditor", "tail", lambda request, operator: page)
    core = system.cores["eu"]
    for forged in (*(failure(code, "not you") for code in Code), encode(page), b"", b"\xc1"):
        core.forge = lambda reply, request, forged=forged: forged
        with pytest.raises((Unavailable, Busy)) as caught:
            await admin.audit_tail("eu", limit=5)
        assert "not you" not in caught.value.detail
    core.forge = lambda reply, request: failure(Code.FORBIDDEN, "the signer bob is retired: you")
    with pytest.raises(Unavailable, match=r"\(forbidden\): the signer is retired$"):
        await admin.audit_tail("eu", limit=5)
    answers = iter([failure(Code.FORBIDDEN, "")])
    core.forge = lambda reply, request: (
        next(answers, None) or encode(core.auditor.sign(Kind.ADMIN_REPLY, reply))
    )
    assert await admin.audit_tail("eu", limit=5) == page


async def test_an_auditor_answers_for_itself_only(system: FakeSystem, admin: Admin) -> None:
    page = TailPage(auditor="auditor-eu", oldest=1, entries=[])
    system.everywhere("auditor", "tail", lambda request, operator: page)
    assert await admin.audit_tail("eu", limit=5) == page
    core = system.identities["core-eu"]
    system.cores["eu"].forge = lambda reply, request: encode(core.sign(Kind.ADMIN_REPLY, reply))
    with pytest.raises(UntrustedReply, match="role auditor"):
        await admin.audit_tail("eu", limit=5)


async def test_a_preview_sends_nothing_that_could_kill(system: FakeSystem, admin: Admin) -> None:
    def preview(request: AdminRequest, operator: str) -> Message:
        query = decode(PreviewQuery, request.payload)
        assert (query.scope, query.target) == ("tenant", "acme")
        return BlastRadius(tenants=["acme"], total=1, services=1, regions=["eu"], incarnations=[])

    system.everywhere("hold", "preview", preview)
    assert (await admin.preview("eu", "tenant", "acme")).tenants == ["acme"]


async def test_a_connection_that_takes_longer_than_a_request_is_not_begun_again(
    system: FakeSystem,
) -> None:
    asked, ready = 0, asyncio.Event()
    system.everywhere(
        "tenant", "list", lambda request, operator: TenantPage(tenants=[], total=0, more=False)
    )

    async def slow(address: BusAddress, name: str) -> object:
        nonlocal asked
        asked += 1
        await ready.wait()
        if asked == 1:
            raise NotLetIn("rejected", "the context names it")
        return await system.open(address, name)

    slow_admin = Admin(system.context(), opener=slow, around=system.clock.around())
    for _ in range(2):
        with pytest.raises(Unreached, match="no connection to the broker in time"):
            await slow_admin.hold_status("eu", bytes(16), deadline_s=0.01)
    ready.set()
    with pytest.raises(NotLetIn):
        await slow_admin.tenants("eu")
    assert asked == 1
    assert await slow_admin.tenants("eu") == ([], 0)
    assert asked == 2
    await slow_admin.close()


async def test_an_attempt_to_connect_ends_with_its_client(system: FakeSystem) -> None:
    ended = asyncio.Event()

    async def hang(address: BusAddress, name: str) -> object:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    admin = Admin(system.context(), opener=hang, around=system.clock.around())
    with pytest.raises(Unreached):
        await admin.hold_status("eu", bytes(16), deadline_s=0.01)
    await admin.close()
    assert ended.is_set()


async def test_the_failure_of_an_attempt_is_only_for_those_who_waited(system: FakeSystem) -> None:
    """A broker that rejected one connection hours ago ends no kill now."""
    asked, ready = 0, asyncio.Event()

    async def opened(address: BusAddress, name: str) -> object:
        nonlocal asked
        asked += 1
        if asked == 1:
            await ready.wait()
            raise NotLetIn("rejected", "the context names it")
        return await system.open(address, name)

    system.everywhere(
        "tenant", "list", lambda request, operator: TenantPage(tenants=[], total=0, more=False)
    )
    admin = Admin(system.context(), opener=opened, around=system.clock.around())
    with pytest.raises(Unreached):
        await admin.hold_status("eu", bytes(16), deadline_s=0.01)
    ready.set()
    await asyncio.sleep(0)  # it fails, and no request waits for it
    await asyncio.sleep(0)
    assert await admin.tenants("eu") == ([], 0)
    assert asked == 2
    await admin.close()
