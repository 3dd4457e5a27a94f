"""Which Cores a Gateway calls for applications that asked only some of them."""

from __future__ import annotations

import pytest
from kcm_killswitch.model.hold_set import HoldState
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.names import key_target

from tests.unit.app_rig import app
from tests.unit.ask_rig import Application, unwrap
from tests.unit.refusals import refusal
from tests.unit.roster_changes import changed, signed_roster
from tests.unit.trust_rig import hold
from tests.unit.two_cores_rig import two_cores, wrap
from tests.vectors.families.messages import identity


@pytest.fixture
async def region(tmp_path):
    region = await two_cores(tmp_path)
    for core in region.cores.values():
        core.me.rosters.take(signed_roster(changed({"gw-eu": {"application": None}})))
        core.registry.put(app("shop", "acme/crm"))
    return region


@pytest.fixture
def shop(region):
    """An application that has a session with core-eu only."""
    return Application(region.cores["core-eu"])


def held(name):
    target = key_target(name, identity(name).public)
    return HoldState(hold(scope="instance", target=target), b"raw")


async def test_who_asked_only_a_held_core_may_ask_another_one(region, shop):
    client = region.client()
    _, blobs = await wrap(client)
    region.revocations.learn(held("core-eu"))
    error = await refusal(unwrap(client, blobs, await shop.part(blobs)))
    assert error.code is Code.UNKNOWN_ASK
    assert error.retryable


async def test_no_session_with_a_held_core_is_carried(region):
    client = region.client()
    region.revocations.learn(held("core-eu"))
    region.asked.clear()
    error = await refusal(client.carry("core-eu", "key", b"x"))
    assert error.code is Code.UNAVAILABLE
    assert "held" in error.detail
    assert not region.asked


async def test_a_core_that_joins_meanwhile_gets_no_request_for_which_nothing_asks_it(region, shop):
    everything = changed({})
    fewer = [one for one in everything.instances if one.instance != "core-eu-2"]
    region.me.rosters.take(signed_roster(everything.model_copy(update={"instances": fewer})))
    later = signed_roster(everything.model_copy(update={"version": everything.version + 1}))
    client = region.client()
    _, blobs = await wrap(client)

    async def join(name, what, _timeout_s):
        if what == "work":
            region.me.rosters.take(later)
            raise KcmError(Code.UNAVAILABLE)

    region.before = join
    error = await refusal(unwrap(client, blobs, await shop.part(blobs)))
    assert error.code is Code.UNKNOWN_ASK
    assert "core-eu-2" not in region.works()
