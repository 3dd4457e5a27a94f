"""A kill while regions are cut off: one that has not heard of it is no reason to give up."""

import pytest
from kcm import Admin
from kcm._internal.kills import Kills
from kcm.errors import Unavailable, UnknownHold
from kcm_schemas.admin.holds import HoldMatches, HoldPrefix, HoldView
from kcm_schemas.admin.kill_status import HoldStatus, RegionStatus
from kcm_schemas.codec import decode
from kcm_schemas.codes import Code, KcmError

from tests.fakes.client import FakeSystem


@pytest.fixture
def system(tmp_path):
    return FakeSystem(tmp_path)


@pytest.fixture
def kills(system):
    admin = Admin(system.context(), opener=system.open, around=system.clock.around())
    return Kills(admin, ["eu", "us"])


def not_known(request, operator):
    raise KcmError(Code.UNKNOWN_HOLD)


def knows(*views):
    """Answers look-ups as a Core that knows these."""

    def show(request, operator):
        prefix = decode(HoldPrefix, request.payload).prefix
        found = [view for view in views if view.hold_id.hex().startswith(prefix)]
        return HoldMatches(holds=found[:2])

    return show


def standing(hold, **changes):
    facts = {"lifted": False, "complete": True}
    return HoldStatus(
        hold_id=hold.id,
        scope=hold.scope,
        target=hold.target,
        cause="operator",
        regions=[RegionStatus(region="eu", durable_at=1, how="durable", left_ms=0)],
        incarnations=[],
        **(facts | changes),
    )


async def test_watching_asks_on_when_only_those_answer_who_have_not_heard(system, kills):
    hold = kills.make("tenant", "acme", "")
    answers = iter([Code.UNAVAILABLE] * 40)

    def cut_off_for_a_while(request, operator):
        if (code := next(answers, None)) is not None:
            raise KcmError(code)
        return standing(hold)

    system.cores["eu"].handlers["hold", "status"] = cut_off_for_a_while
    system.cores["us"].handlers["hold", "status"] = not_known
    seen = [status.complete async for status in kills.watch(hold.id, system.clock.now + 60)]
    assert seen == [True]


async def test_a_hold_that_nobody_knows_is_not_there_yet(system, kills):
    hold = kills.make("tenant", "acme", "")
    system.everywhere("hold", "status", not_known)
    with pytest.raises(Unavailable, match="does not know"):
        await kills.status(hold.id, system.clock.now + 5)


async def test_a_lift_finds_its_hold_in_whichever_region_knows_it(system, kills):
    hold = kills.make("tenant", "acme", "")
    known = HoldView(
        hold_id=hold.id, scope=hold.scope, target=hold.target, cause="operator", origin="eu",
        issuer="alice", issued_ms=1, reason="", lifted=False, lifted_ms=0,
        lifted_by="", lift_reason="", raw=hold.raw,
    )  # fmt: skip
    system.cores["eu"].handlers["hold", "show"] = lambda request, operator: HoldMatches(holds=[])
    system.cores["us"].handlers["hold", "show"] = knows(known)
    system.everywhere("hold", "put", lambda request, operator: standing(hold, lifted=True))
    assert (await kills.lift(hold.id, "", system.clock.now + 5)).lifted
    with pytest.raises(UnknownHold):
        await kills.lift(bytes(16), "", system.clock.now + 5)
