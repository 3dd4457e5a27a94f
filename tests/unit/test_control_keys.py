"""Holds on the key of an application or an instance: what they end, and what they leave."""

from __future__ import annotations

from dataclasses import replace

import pytest
from kcm_killswitch.model.held_keys import HeldKeys
from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.revocations import Revocations
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.names import key_target
from kcm_schemas.registry import Tenant
from pydantic import ValidationError

from tests.unit.trust_rig import hold

KEY = bytes(range(32))
OTHER = bytes(32)
GATEWAY = key_target("gw-eu", KEY)


def state(scope, target):
    return HoldState(hold(scope=scope, target=target), b"raw")


def replica(own_key=""):
    registry = Registry()
    for name in ("acme", "bcme"):
        registry.put(
            Tenant(tenant=name, revision=1, link=name, regions=["eu"], region_quorum="all")
        )
    return Revocations(registry, "eu", own_key)


@pytest.mark.parametrize("scope", ["app", "instance"])
def test_a_hold_is_on_one_key_of_one_name_and_on_no_tenant(scope):
    revocations = replica()
    held = HeldKeys(revocations, scope)
    other = HeldKeys(revocations, "instance" if scope == "app" else "app")
    one = state(scope, key_target("shop", KEY))
    assert revocations.learn(one).purge == ()
    assert held.has("shop", KEY)
    assert not held.has("shop", OTHER)
    assert not held.has("till", KEY)
    assert not other.has("shop", KEY)
    assert not any(map(revocations.killed, ("acme", "shop")))
    revocations.learn(replace(one, lift=b"lift"))
    assert not held.has("shop", KEY)


def test_only_a_hold_on_a_key_is_reported_and_every_time_that_it_comes_into_force():
    revocations, heard = replica(), []
    HeldKeys(revocations, "instance").listen(heard.append)
    one = state("instance", GATEWAY)
    for any_other in (state("app", GATEWAY), state("tenant", "acme"), state("region", "eu")):
        revocations.learn(any_other)
    assert heard == []
    revocations.learn(one)
    revocations.learn(one)
    assert heard == [{"gw-eu"}]
    over = replace(one, lift=b"lift")
    revocations.learn(over)
    revocations.judge(one.hold.id, one)  # its lift counts no more
    assert heard == [{"gw-eu"}, {"gw-eu"}]


def test_the_instance_that_has_the_key_purges_everything_and_sends_callers_elsewhere():
    revocations = replica(own_key=GATEWAY)
    before = revocations.begin("acme")
    assert revocations.learn(state("instance", GATEWAY)).purge == ("acme", "bcme")
    with pytest.raises(KcmError) as refused:
        revocations.still("acme", before)
    assert refused.value.code is Code.UNAVAILABLE
    assert "this instance" in refused.value.detail


def test_no_other_instance_purges_for_it():
    revocations = replica(own_key=key_target("gw-eu", OTHER))
    assert revocations.learn(state("instance", GATEWAY)).purge == ()
    assert not revocations.killed("acme")


def test_instances_with_the_same_registry_report_the_same_reach():
    one, other = replica(own_key=GATEWAY), replica()
    held = state("instance", GATEWAY)
    assert one.reached(held) == other.reached(held)


@pytest.mark.parametrize(
    ("scope", "target"),
    [
        ("app", "shop"),
        ("instance", "gw-eu"),
        ("tenant", GATEWAY),
        ("link", GATEWAY),
        ("region", GATEWAY),
        ("app", "shop."),
        ("app", GATEWAY.upper()),
        ("app", GATEWAY + "0"),
        ("app", "shop.*"),
        ("app", f"*.{'0' * 32}"),
        ("app", f"shop.{'0' * 32}\n"),
    ],
)
def test_a_hold_with_the_target_of_another_scope_is_not_read(scope, target):
    with pytest.raises(ValidationError):
        hold(scope=scope, target=target)
