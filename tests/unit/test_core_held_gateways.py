"""Gateways whose key an operator took out of service, at a Core."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from kcm_killswitch.model.hold_set import HoldState
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.names import key_target

from tests.unit.core_rig import World
from tests.unit.test_core_sessions import ticket
from tests.unit.trust_rig import hold
from tests.vectors.families.messages import identity


@pytest.fixture
def core(world: World):
    return world.core()


def kill_key(core, name="gw-eu", public=None):
    target = key_target(name, public or identity(name).public)
    state = HoldState(hold(scope="instance", target=target), b"raw")
    core.revocations.learn(state)
    return state


async def test_a_hold_on_its_key_closes_a_gateways_sessions_and_opens_none(core):
    session = core.sessions.open(ticket(core))
    state = kill_key(core)
    assert session.keys.closed
    assert "or of one that is held" in (await refused_ticket(core)).detail
    core.revocations.learn(dataclasses.replace(state, lift=b"lift"))
    core.sessions.open(ticket(core))


async def refused_ticket(core):
    with pytest.raises(KcmError) as error:
        core.sessions.open(ticket(core))
    assert error.value.code is Code.FORBIDDEN
    return error.value


async def test_a_hold_on_another_key_or_another_gateway_changes_nothing(core):
    kill_key(core, "gw-us")
    session = core.sessions.open(ticket(core))
    kill_key(core, "core-eu")
    assert not session.keys.closed
    kill_key(core, public=identity("gw-us").public)  # a former key of it: its sessions are renewed
    core.sessions.open(ticket(core))


async def test_a_core_whose_own_key_is_held_says_so_in_its_log(core, caplog):
    kill_key(core, core.me.name, public=bytes(32))
    kill_key(core)
    assert "key of this instance" not in caplog.text
    kill_key(core, core.me.name)
    assert "key of this instance" not in caplog.text  # nothing is written before the purge
    await asyncio.sleep(0)
    assert caplog.text.count("key of this instance") == 1
