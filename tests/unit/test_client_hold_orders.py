"""Holds and lifts: signed, sent to the regions, watched, found and listed."""

from pathlib import Path

import pytest
from kcm._internal.admin import Admin
from kcm._internal.kills import Kills, NewHold
from kcm._internal.rpc import BrokerRefused
from kcm.errors import (
    Forbidden,
    Malformed,
    Unavailable,
    UnknownHold,
    UntrustedReply,
)
from kcm_schemas.admin.holds import HoldMatches, HoldPage, HoldPageQuery, HoldView
from kcm_schemas.admin.kill_status import HoldStatus, RegionStatus
from kcm_schemas.admin.requests import AdminRequest, PutStatement
from kcm_schemas.codec import Message, decode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import Lift
from kcm_trust.verify import VerifiedLift

from tests.fakes.client import FakeSystem


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


async def test_a_broker_that_refuses_the_order_is_no_reason_to_end(
    system: FakeSystem, admin: Admin
) -> None:
    """It may be hostile: only what a Core signed ends a kill."""
    kills = Kills(admin, ["eu", "us"])
    hold = kills.make("tenant", "acme", "drill")
    asked = 0

    async def place(_admin: Admin, region: str, *_: object, **__: object) -> HoldStatus:
        nonlocal asked
        asked += 1
        if asked < 4:
            raise BrokerRefused("the broker does not let this client send the request")
        return status(hold)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Admin, "put_hold", place)
        assert await kills.place(hold, system.clock.now + 60) == status(hold)
    assert asked >= 4


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
