"""Applications whose key an operator took out of service, at a Gateway."""

from __future__ import annotations

from dataclasses import replace

import pytest
from kcm_killswitch.model.hold_set import HoldState
from kcm_schemas import data_subjects
from kcm_schemas.codes import Code
from kcm_schemas.names import key_target

from tests.unit.app_rig import Bus, Served, app, channel, following
from tests.unit.refusals import refusal
from tests.unit.test_gateway_applications import ask, plain
from tests.unit.trust_rig import hold
from tests.vectors.families.messages import identity


@pytest.fixture
def gateway():
    made = Served()
    made.registry.put(app("shop", "acme/crm"))
    return made


@pytest.fixture
def bus(gateway):
    return Bus(gateway)


def hold_key(gateway, name="shop"):
    """What a Gateway does with an operator's hold on the key that an application has now."""
    target = key_target(name, gateway.registry.app(name).public_key)
    state = HoldState(hold(scope="app", target=target), b"raw")
    assert gateway.revocations.learn(state).purge == ()
    return state


async def test_a_hold_on_its_key_ends_an_application_at_once_and_says_so(gateway, bus):
    sdk = channel(bus)
    await ask(bus, sdk)
    state = hold_key(gateway)
    error = await refusal(ask(bus, sdk))
    assert error.code is Code.FORBIDDEN
    assert "took the application's key out of service" in error.detail
    assert (await refusal(ask(bus, channel(bus)))).code is Code.UNAVAILABLE  # it opens no session
    assert gateway.engine.calls == 1
    gateway.revocations.learn(replace(state, lift=b"lift"))
    await ask(bus, channel(bus))


async def test_a_hold_during_the_work_counts(gateway, bus):
    sdk = channel(bus)
    await ask(bus, sdk)
    gateway.engine.work = lambda: hold_key(gateway)
    error = await refusal(ask(bus, sdk))
    assert error.code is Code.FORBIDDEN
    assert gateway.audit.events[-1] == ("data.encrypt", Code.FORBIDDEN, 1, 1)


async def test_another_key_of_a_held_application_is_served_and_its_old_one_never(gateway, bus):
    hold_key(gateway)
    entry = gateway.registry.app("shop")
    gateway.registry.put(following(entry, public_key=identity("shop-2").public))
    await ask(bus, channel(bus, key="shop-2"))
    assert (await refusal(ask(bus, channel(bus)))).code is Code.UNAVAILABLE


async def test_a_hold_on_another_application_changes_nothing(gateway, bus):
    gateway.registry.put(app("till", "acme/crm"))
    hold_key(gateway, "till")
    await ask(bus, channel(bus))


async def test_a_plain_application_ends_with_its_key(gateway):
    gateway.registry.put(app("till", "acme/crm", plain=True))
    subject = data_subjects.gateway("eu", "encrypt", "acme", "crm")
    await gateway.api.handle(subject, plain(gateway))
    hold_key(gateway, "till")
    assert (await refusal(gateway.api.handle(subject, plain(gateway)))).code is Code.FORBIDDEN


async def test_a_gateway_that_hears_nothing_of_its_region_refuses_no_application_for_good(
    gateway, bus
):
    sdk = channel(bus)
    await ask(bus, sdk)
    hold_key(gateway)
    assert (await refusal(ask(bus, sdk))).code is Code.FORBIDDEN
    gateway.knows_until = gateway.clock.elapsed()  # the hold may be lifted by now
    error = await refusal(ask(bus, sdk))
    assert (error.code, "heard nothing" in error.detail) == (Code.UNAVAILABLE, True)
