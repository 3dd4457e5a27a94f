"""Operators' requests and the kill flow, against Cores in memory and brokers that lie."""

import asyncio
import gc
from collections.abc import Callable
from pathlib import Path

import pytest
from kcm._internal import statements
from kcm._internal.admin import Admin
from kcm._internal.client_context import ClientContext, ContextError, default_path
from kcm._internal.kills import Kills, NewHold
from kcm._internal.retry import AGAIN_S, REPEATS_MAX, repeated
from kcm._internal.staggered import first
from kcm.errors import (
    Conflict,
    Forbidden,
    Malformed,
    Unavailable,
    UnknownHold,
    UntrustedReply,
    error_for,
)
from kcm_schemas.admin.holds import (
    BlastRadius,
    HoldMatches,
    HoldPage,
    HoldPageQuery,
    HoldView,
    PreviewQuery,
)
from kcm_schemas.admin.key_budget import KeyUse
from kcm_schemas.admin.kill_status import HoldStatus, RegionStatus
from kcm_schemas.admin.requests import AdminReply, AdminRequest, Empty, PutStatement
from kcm_schemas.admin.tenants import TenantPage, TenantQuery
from kcm_schemas.auditor import TailPage
from kcm_schemas.codec import Message, decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import Lift
from kcm_schemas.signed import Kind
from kcm_trust.verify import VerifiedLift, verify_roster

from tests.fakes.client import FakeSystem, failure

KEY_USE = KeyUse(
    core="core-eu", region="eu", state="free", since_ms=0, in_use=3, most=594, sealed=0,
    sealed_all=0, sealed_ms=0,
)  # fmt: skip


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    return FakeSystem(tmp_path)


@pytest.fixture
def admin(system: FakeSystem) -> Admin:
    return Admin(system.context(), opener=system.open, around=system.clock.around())


def status(hold: NewHold, *, durable: bool = True, complete: bool = False) -> HoldStatus:
    return HoldStatus(
        hold_id=hold.id,
        scope=hold.scope,
        target=hold.target,
        cause="operator",
        lifted=False,
        complete=complete,
        regions=[
            RegionStatus(
                region="eu",
                durable_at=int(durable),
                how="durable" if durable else "waiting",
                left_ms=0,
            )
        ],
        incarnations=[],
    )


async def test_the_answer_of_another_core_than_the_one_asked_is_not_believed(
    system: FakeSystem, admin: Admin
) -> None:
    core = system.cores["eu"]
    core.handlers["key", "status"] = lambda *_: KEY_USE
    assert await admin.key_use("eu", "core-eu") == KEY_USE
    assert core.subjects == ["kcm.v1.eu.admin.key.status.core-eu"]
    core.meddles = True
    with pytest.raises(UntrustedReply, match="another Core"):
        await admin.key_use("eu", "core-eu-2")


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


async def test_two_cores_in_each_others_way_are_no_conflict() -> None:
    """The first Core is slow; the second one finds that somebody else wrote, and says so first."""
    asked = 0

    async def ask() -> str:
        nonlocal asked
        asked += 1
        if asked == 1:
            await asyncio.sleep(0.1)
            return "done"
        raise Conflict("somebody else changed this")

    assert await repeated(ask, again_s=0.02) == "done"
    assert asked > 1


async def test_a_conflict_is_told_when_nobody_else_says_better() -> None:
    asked = 0

    async def ask() -> str:
        nonlocal asked
        asked += 1
        if asked == 1:
            await asyncio.sleep(3600)
        raise Conflict("another record has this name")

    with pytest.raises(Conflict):
        await repeated(ask, again_s=0.01)
    assert asked == 1 + REPEATS_MAX


@pytest.mark.parametrize("code", [Code.FORBIDDEN, Code.UNAVAILABLE, Code.BUSY])
async def test_any_other_failure_ends_the_attempt(code: Code) -> None:
    asked = 0

    async def ask() -> str:
        nonlocal asked
        asked += 1
        if asked == 1:
            await asyncio.sleep(3600)
        raise error_for(code)

    with pytest.raises(KcmError) as info:
        await repeated(ask, again_s=0.01)
    assert info.value.code is code
    assert asked == 2


async def test_failures_that_come_together_are_told_once_and_to_nobody_else() -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    asked, answer = 0, asyncio.Event()

    async def ask() -> str:
        nonlocal asked
        asked += 1
        if asked == 3:
            answer.set()
        await answer.wait()
        raise Unavailable("no answer in time")

    with pytest.raises(Unavailable):
        await repeated(ask, again_s=0.001)
    gc.collect()
    await asyncio.sleep(0)
    assert asked >= 3
    assert told == []


async def test_a_flood_of_the_same_question_is_bounded() -> None:
    asked = 0

    async def ask() -> str:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.3)
        return "late"

    assert await repeated(ask, again_s=0.001) == "late"
    assert asked == 1 + REPEATS_MAX


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


async def test_an_unsigned_answer_is_a_failure_at_best(system: FakeSystem, admin: Admin) -> None:
    system.everywhere(
        "tenant", "list", lambda request, operator: TenantPage(tenants=[], total=0, more=False)
    )
    system.cores["eu"].forge = lambda reply, request: failure(Code.FORBIDDEN, "not you")
    with pytest.raises(Forbidden, match="not you"):
        await admin.tenants("eu")
    system.cores["eu"].forge = lambda reply, request: failure(Code.OK)
    with pytest.raises(KcmError, match="internal"):
        await admin.tenants("eu")
    system.cores["eu"].forge = lambda reply, request: encode(
        TenantPage(tenants=[], total=0, more=False)
    )
    with pytest.raises(KcmError, match="internal"):
        await admin.tenants("eu")


async def test_an_auditor_answers_for_itself_only(system: FakeSystem, admin: Admin) -> None:
    page = TailPage(auditor="auditor-eu", oldest=1, entries=[])
    system.everywhere("auditor", "tail", lambda request, operator: page)
    assert await admin.audit_tail("eu", limit=5) == page
    core = system.identities["core-eu"]
    system.cores["eu"].forge = lambda reply, request: encode(core.sign(Kind.ADMIN_REPLY, reply))
    with pytest.raises(UntrustedReply, match="role auditor"):
        await admin.audit_tail("eu", limit=5)


async def test_a_hold_is_placed_through_whichever_region_answers(
    system: FakeSystem, admin: Admin
) -> None:
    kills = Kills(admin, ["eu", "us"])
    hold = kills.make("tenant", "acme", "a drill")
    believed = system.verifier.hold(hold.raw)
    assert (believed.hold.id, believed.hold.origin, believed.issuer) == (hold.id, "eu", "alice")
    system.everywhere("hold", "put", lambda request, operator: status(hold))
    system.unreachable.add("eu")
    assert (await kills.place(hold, system.clock.now + 5)).hold_id == hold.id
    assert [request.verb for request in system.cores["us"].requests] == ["put"]


async def test_a_hold_is_placed_again_until_it_is_durable(system: FakeSystem, admin: Admin) -> None:
    kills = Kills(admin, ["eu"])
    hold = kills.make("link", "acme-root", "")
    stored = iter([False, False, True])
    sent: list[bytes] = []

    def put(request: AdminRequest, operator: str) -> Message:
        sent.append(decode(PutStatement, request.payload).statement)
        return status(hold, durable=next(stored))

    system.everywhere("hold", "put", put)
    placed = await kills.place(hold, system.clock.now + 30)
    assert placed.regions[0].durable_at == 1
    assert sent == [hold.raw] * 3


async def test_placing_ends_when_time_is_up(system: FakeSystem, admin: Admin) -> None:
    kills = Kills(admin, ["eu", "us"])
    hold = kills.make("tenant", "acme", "")
    system.unreachable |= {"eu", "us"}
    until = system.clock.now + 10
    with pytest.raises(Unavailable):
        await kills.place(hold, until)
    assert system.clock.now <= until


async def test_a_refused_hold_is_not_tried_for_ever(system: FakeSystem, admin: Admin) -> None:
    def refuse(request: AdminRequest, operator: str) -> Message:
        raise KcmError(Code.FORBIDDEN, "no")

    system.everywhere("hold", "put", refuse)
    kills = Kills(admin, ["eu", "us"])
    with pytest.raises(Forbidden):
        await kills.place(kills.make("tenant", "acme", ""), system.clock.now + 10)


async def test_watching_ends_with_complete_and_rides_out_what_passes(
    system: FakeSystem, admin: Admin
) -> None:
    kills = Kills(admin, ["eu"])
    hold = kills.make("tenant", "acme", "")
    steps = iter([False, None, None, False, True])

    def look(request: AdminRequest, operator: str) -> Message:
        step = next(steps)
        if step is None:
            raise KcmError(Code.UNAVAILABLE)
        return status(hold, complete=step)

    system.everywhere("hold", "status", look)
    seen = [entry.complete async for entry in kills.watch(hold.id, system.clock.now + 60)]
    assert seen == [False, False, True]


async def test_watching_ends_when_time_is_up(system: FakeSystem, admin: Admin) -> None:
    kills = Kills(admin, ["eu"])
    hold = kills.make("tenant", "acme", "")
    system.everywhere("hold", "status", lambda request, operator: status(hold))
    until = system.clock.now + 3
    seen = [entry.complete async for entry in kills.watch(hold.id, until)]
    assert seen
    assert not any(seen)
    assert system.clock.now <= until


async def test_the_status_of_another_hold_is_not_believed(system: FakeSystem, admin: Admin) -> None:
    kills = Kills(admin, ["eu"])
    mine, other = kills.make("tenant", "acme", ""), kills.make("tenant", "acme", "")
    system.everywhere("hold", "status", lambda request, operator: status(other, complete=True))
    with pytest.raises(UntrustedReply):
        await kills.status(mine.id, system.clock.now + 5)


async def test_a_preview_sends_nothing_that_could_kill(system: FakeSystem, admin: Admin) -> None:
    def preview(request: AdminRequest, operator: str) -> Message:
        query = decode(PreviewQuery, request.payload)
        assert (query.scope, query.target) == ("tenant", "acme")
        return BlastRadius(tenants=["acme"], total=1, services=1, regions=["eu"], incarnations=[])

    system.everywhere("hold", "preview", preview)
    assert (await admin.preview("eu", "tenant", "acme")).tenants == ["acme"]


def view(hold: NewHold, **changes: object) -> HoldView:
    fields: dict[str, object] = {
        "hold_id": hold.id,
        "scope": hold.scope,
        "target": hold.target,
        "cause": "operator",
        "origin": "eu",
        "issuer": "alice",
        "issued_ms": 1,
        "reason": "",
        "lifted": False,
        "lifted_ms": 0,
        "lifted_by": "",
        "lift_reason": "",
        "raw": hold.raw,
    }
    return HoldView.model_validate(fields | changes)


async def test_a_lift_embeds_the_hold_as_it_was_signed(system: FakeSystem, admin: Admin) -> None:
    kills = Kills(admin, ["eu"])
    hold = kills.make("tenant", "acme", "a drill")
    system.everywhere("hold", "show", lambda request, operator: HoldMatches(holds=[view(hold)]))

    def put(request: AdminRequest, operator: str) -> Message:
        raw = decode(PutStatement, request.payload).statement
        lifted = system.verifier.hold_or_lift(raw)
        assert isinstance(lifted, VerifiedLift)
        assert isinstance(lifted.lift, Lift)
        assert lifted.held.raw == hold.raw
        assert lifted.lift.reason == "it was a drill"
        return status(hold).model_copy(update={"lifted": True})

    system.everywhere("hold", "put", put)
    done = await kills.lift(hold.id, "it was a drill", system.clock.now + 5)
    assert done.lifted


async def test_only_what_somebody_placed_is_lifted(system: FakeSystem, admin: Admin) -> None:
    kills = Kills(admin, ["eu"])
    hold, other = kills.make("tenant", "acme", ""), kills.make("tenant", "globex", "")
    found = HoldMatches(holds=[])
    system.everywhere("hold", "show", lambda request, operator: found)
    with pytest.raises(UnknownHold):
        await kills.lift(bytes(16), "", system.clock.now + 5)
    found = HoldMatches(holds=[view(hold, raw=other.raw)])
    with pytest.raises(UntrustedReply):
        await kills.lift(hold.id, "", system.clock.now + 5)
    found = HoldMatches(holds=[view(hold, raw=b"forged")])
    with pytest.raises(UntrustedReply):
        await kills.lift(hold.id, "", system.clock.now + 5)


async def test_an_id_may_be_shortened_as_long_as_it_is_one(
    system: FakeSystem, admin: Admin
) -> None:
    kills = Kills(admin, ["eu"])
    holds = [kills.make("tenant", "acme", "") for _ in range(2)]
    found = HoldMatches(holds=[view(holds[0])])
    system.everywhere("hold", "show", lambda request, operator: found)
    assert (await kills.find(holds[0].id.hex()[:16])).raw == holds[0].raw
    found = HoldMatches(holds=[view(hold) for hold in holds])
    with pytest.raises(Malformed, match="several"):
        await kills.find("a")
    for none in ("", "zz", "a" * 33):
        with pytest.raises(Malformed, match="hexadecimal"):
            await kills.find(none)


async def test_a_list_is_followed_page_by_page_and_shown_by_age(
    system: FakeSystem, admin: Admin
) -> None:
    kills = Kills(admin, ["eu"])
    made = [kills.make("tenant", "acme", "") for _ in range(5)]
    known = sorted(
        (view(hold, issued_ms=9 - n) for n, hold in enumerate(made)), key=lambda one: one.hold_id
    )

    def listed(request: AdminRequest, operator: str) -> Message:
        query = decode(HoldPageQuery, request.payload)
        behind = [one for one in known if one.hold_id > query.after]
        return HoldPage(holds=behind[:2], more=len(behind) > 2)

    system.everywhere("hold", "list", listed)
    assert [one.hold_id for one in await kills.listing()] == [hold.id for hold in made[::-1]]


@pytest.mark.parametrize("ids", [[], [1], [0, 1], [3, 2], [2, 2]])
async def test_a_list_that_never_ends_is_not_followed(
    system: FakeSystem, admin: Admin, ids: list[int]
) -> None:
    kills = Kills(admin, ["eu"])
    hold = kills.make("tenant", "acme", "")
    first = HoldPage(holds=[view(hold, hold_id=bytes([1]) * 16)], more=True)
    again = HoldPage(holds=[view(hold, hold_id=bytes([n]) * 16) for n in ids], more=True)

    def listed(request: AdminRequest, operator: str) -> Message:
        return again if any(decode(HoldPageQuery, request.payload).after) else first

    system.everywhere("hold", "list", listed)
    with pytest.raises(UntrustedReply):
        await kills.listing()


async def test_a_slow_region_is_overtaken() -> None:
    gate = asyncio.Event()

    async def ask(region: str) -> str:
        if region == "slow":
            try:
                await gate.wait()
            except asyncio.CancelledError:
                gate.set()
                raise
        return region

    assert await first(["slow", "fast"], ask, stagger_s=0.01) == ("fast", "fast")
    assert gate.is_set()


async def test_a_decision_outweighs_a_failure_to_ask() -> None:
    async def ask(region: str) -> str:
        raise Forbidden if region == "us" else Unavailable

    with pytest.raises(Forbidden):
        await first(["eu", "us", "ap"], ask)
    with pytest.raises(Unavailable, match="no region"):
        await first([], ask)


def test_a_context_that_is_missing_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ContextError, match="no context file") as caught:
        ClientContext.load(tmp_path / "none.toml", {})
    assert "kcm dev up" in caught.value.hint
    assert "--context" in caught.value.hint


def test_a_context_is_found_where_dev_up_writes_it(system: FakeSystem) -> None:
    assert default_path({"XDG_STATE_HOME": "/state"}) == Path("/state/kcm/dev/context.toml")
    named = ClientContext.load(None, {"KCM_CONTEXT": str(system.context_file)})
    assert named.region(None) == "eu"
    with pytest.raises(ContextError) as caught:
        named.region("mars")
    assert "eu, us" in caught.value.hint


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('default_region = "eu"', 'default_region = "mars"'),
        ('system = "acme"', 'system = "acme"\nunknown = 1'),
        ("[regions.eu]", "[regions.'e.u']"),
        ('system = "acme"', "system = "),
    ],
)
def test_a_context_is_checked(system: FakeSystem, old: str, new: str) -> None:
    text = system.context_file.read_text()
    assert old in text
    system.context_file.write_text(text.replace(old, new))
    with pytest.raises(ContextError):
        system.context()


def test_only_the_roots_roster_of_this_system_is_believed(system: FakeSystem) -> None:
    roster = system.directory / "roster"
    raw = roster.read_bytes()
    assert verify_roster(raw, system.root.public, 0) == system.roster
    roster.write_bytes(encode(system.alice.sign(Kind.ROSTER, system.roster)))
    with pytest.raises(ContextError, match="not believed"):
        system.context().verifier()
    other = system.roster.model_copy(update={"system": "other"})
    roster.write_bytes(encode(system.root.sign(Kind.ROSTER, other)))
    with pytest.raises(ContextError, match="another system"):
        system.context().verifier()
    roster.unlink()
    with pytest.raises(ContextError, match="cannot read"):
        system.context().verifier()


def test_an_operators_key_has_to_be_private(system: FakeSystem) -> None:
    (system.directory / "alice.key").chmod(0o644)
    with pytest.raises(ContextError, match="chmod 600"):
        Admin(system.context())
    text = system.context_file.read_text()
    system.context_file.write_text(text[: text.index("[operator]")])
    with pytest.raises(ContextError, match="no operator"):
        Admin(system.context())
