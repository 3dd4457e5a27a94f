"""May a tenant be served, and until when: every reason to refuse, and the smallest remainder."""

from typing import Any

import pytest
from kcm_killswitch.model.admission import Admission
from kcm_killswitch.model.freshness import Freshness
from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.key_leases import AttestedKey, Target
from kcm_killswitch.model.log_position import NOWHERE, LogPosition
from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.revocations import Revocations
from kcm_killswitch.model.timing import Timing
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import Hold
from kcm_schemas.registry import Link, Tenant

KEY = AttestedKey(Target("root", 1, "1"), "me")
OTHER = AttestedKey(Target("root", 1, "2"), "me")


class Incarnation:
    """Serves ``acme`` of regions eu, us and ap in eu."""

    def __init__(
        self,
        *,
        region_quorum: Any = "all",
        regions=("eu", "us", "ap"),
        model: Any = "byok",
        link=True,
        told=False,
    ):
        self.known = Freshness(Timing())
        self.known.resumed(0)
        self.registry = Registry()
        self.revocations = Revocations(self.registry, "eu")
        self.admission = Admission(self.known, self.revocations, self.registry, "eu", told=told)
        self.sequence = 0
        if link:
            self.revocations.register(Link(link="root", revision=1, uri="x:/y", model=model))
        self.revocations.register(
            Tenant(
                tenant="acme",
                revision=1,
                link="root",
                regions=list(regions),
                region_quorum=region_quorum,
            )
        )

    def write(self, now):
        self.sequence += 1
        mark = LogPosition(self.sequence, self.sequence.to_bytes(16, "big"))
        assert self.known.wrote(now, self.known.lease.seen, mark)
        self.known.leased(mark, own=True)
        self.known.delivered(mark.sequence)
        return mark

    def hear(self, now, *others, attestation=None):
        mark = self.write(now)
        for other in others:
            assert self.known.peer_leased(other, mark, NOWHERE)
        if attestation is not None:
            assert self.known.attested(attestation, mark)

    def kill(self, number=1, scope: Any = "tenant", target="acme", *, lift=False):
        one = Hold(
            id=bytes([number]) * 16, salt=bytes(16), scope=scope, target=target,
            cause="operator", origin="eu", issued_ms=1, reason="",
        )  # fmt: skip
        return self.revocations.learn(HoldState(one, b"raw", b"lift" if lift else None))

    def refusal(self, now, permit=None):
        with pytest.raises(KcmError) as caught:
            _ = self.admission.recheck(permit, now) if permit else self.admission.admit("acme", now)
        return caught.value.code


def ready(now=100.0, **options):
    incarnation = Incarnation(**options)
    incarnation.hear(now, "us", "ap", attestation=KEY)
    return incarnation


def test_a_tenant_that_is_known_here_and_heard_of_is_served_for_the_smallest_remainder():
    incarnation = ready()
    incarnation.admission.open("acme", KEY)
    permit = incarnation.admission.admit("acme", 101.0)
    assert permit.until == 110.0
    assert incarnation.admission.recheck(permit, 103.0) == 7.0


@pytest.mark.parametrize("now", [110.0, 110.5, 1e9])
def test_an_incarnation_without_a_control_lease_serves_nobody(now):
    assert ready().refusal(now) is Code.UNAVAILABLE


def test_an_incarnation_that_never_wrote_serves_nobody():
    assert Incarnation(regions=("eu",)).refusal(0.0) is Code.UNAVAILABLE


def test_a_tenant_that_is_not_registered_or_not_for_this_region_is_unknown():
    incarnation = ready()
    with pytest.raises(KcmError) as caught:
        incarnation.admission.admit("beta", 101.0)
    assert caught.value.code is Code.UNKNOWN_TENANT
    assert ready(regions=("us", "ap")).refusal(101.0) is Code.UNKNOWN_TENANT


def test_a_gateway_does_not_say_that_a_tenant_is_unknown_while_no_core_says_what_there_is():
    """It has no baseline of its own, and the bucket may have been lost with that of the Cores."""
    incarnation = ready(told=True)
    with pytest.raises(KcmError, match="no Core of the region says") as caught:
        incarnation.admission.admit("beta", 101.0)
    assert caught.value.code is Code.UNAVAILABLE
    assert incarnation.admission.admit("acme", 101.0)
    lease, digests = incarnation.known.registry, incarnation.revocations.registry_digests
    lease.heard("core-eu-1", digests, digests, 10.0, 101.0)
    with pytest.raises(KcmError, match="unknown_tenant"):
        incarnation.admission.admit("beta", 105.0)
    incarnation.write(110.0)
    with pytest.raises(KcmError, match="no Core of the region says"):
        incarnation.admission.admit("beta", 112.0)


@pytest.mark.parametrize(
    ("scope", "target"), [("tenant", "acme"), ("link", "root"), ("region", "eu")]
)
def test_a_hold_refuses_whatever_else_is_well(scope, target):
    incarnation = ready()
    permit = incarnation.admission.admit("acme", 101.0)
    incarnation.kill(scope=scope, target=target)
    assert incarnation.admission.killed("acme")
    assert incarnation.refusal(101.0) is Code.TENANT_KILLED
    assert incarnation.refusal(101.0, permit) is Code.TENANT_KILLED


@pytest.mark.parametrize(
    ("scope", "target"), [("tenant", "beta"), ("link", "other"), ("region", "us")]
)
def test_a_hold_on_somebody_else_refuses_nothing(scope, target):
    incarnation = ready()
    permit = incarnation.admission.admit("acme", 101.0)
    incarnation.kill(scope=scope, target=target)
    assert incarnation.admission.recheck(permit, 101.0) > 0


def test_what_began_before_a_kill_and_its_lift_has_no_output():
    incarnation = ready()
    old = incarnation.admission.admit("acme", 101.0)
    incarnation.kill()
    incarnation.kill(lift=True)
    new = incarnation.admission.admit("acme", 101.0)
    assert incarnation.refusal(101.0, old) is Code.TENANT_UNAVAILABLE
    assert incarnation.admission.recheck(new, 101.0) > 0
    incarnation.kill(2)
    incarnation.kill(2, lift=True)
    assert incarnation.refusal(101.0, new) is Code.TENANT_UNAVAILABLE
    assert len({old.generation, new.generation, incarnation.revocations.generation("acme")}) == 3


@pytest.mark.parametrize(
    ("model", "grace"), [("byok", 60.0), ("hyok", 10.0)]
)  # fmt: skip
def test_peer_leases_end_after_the_grace_of_the_links_model(model, grace):
    incarnation = ready(model=model)
    for now in range(103, 100 + int(grace) + 1, 3):
        incarnation.write(float(now))
    incarnation.write(100.0 + grace - 0.5)
    assert incarnation.admission.admit("acme", 100.0 + grace - 0.1).until == 100.0 + grace
    assert incarnation.refusal(100.0 + grace) is Code.UNAVAILABLE


def test_a_link_that_is_not_known_has_the_shorter_grace():
    incarnation = ready(link=False)
    incarnation.write(105.0)
    assert incarnation.admission.admit("acme", 109.0).until == 110.0
    assert incarnation.refusal(110.0) is Code.UNAVAILABLE


@pytest.mark.parametrize(
    ("region_quorum", "heard", "served"),
    [
        ("all", ("us", "ap"), True),
        ("all", ("us",), False),
        ("majority", ("us",), True),
        ("majority", (), False),
        ("local", (), True),
    ],
)
def test_a_policy_says_how_many_regions_have_to_be_heard(region_quorum, heard, served):
    incarnation = Incarnation(region_quorum=region_quorum)
    incarnation.hear(100.0, *heard)
    if served:
        assert incarnation.admission.admit("acme", 101.0).until == 110.0
    else:
        assert incarnation.refusal(101.0) is Code.UNAVAILABLE


def test_a_retired_region_is_not_waited_for_and_is_again_after_the_lift():
    incarnation = Incarnation()
    incarnation.hear(100.0, "us")
    assert incarnation.refusal(101.0) is Code.UNAVAILABLE
    incarnation.kill(scope="region", target="ap")
    incarnation.admission.admit("acme", 101.0)
    incarnation.kill(scope="region", target="ap", lift=True)
    assert incarnation.refusal(101.0) is Code.UNAVAILABLE


def test_a_tenant_of_this_region_alone_waits_for_no_other():
    incarnation = Incarnation(regions=("eu",))
    incarnation.write(100.0)
    assert incarnation.admission.admit("acme", 101.0).until == 110.0
    assert incarnation.admission.quorum_set(incarnation.admission.known("acme")) == []


def test_an_open_root_is_unloaded_when_its_key_was_not_used_for_a_lease():
    incarnation = ready()
    incarnation.admission.open("acme", KEY)
    incarnation.hear(129.0, "us", "ap")
    permit = incarnation.admission.admit("acme", 129.5)
    assert incarnation.admission.recheck(permit, 129.5) == 0.5
    assert incarnation.admission.live("acme", 129.9)
    assert incarnation.admission.lapsed(129.9) == []
    assert incarnation.refusal(130.0, permit) is Code.TENANT_UNAVAILABLE
    assert not incarnation.admission.live("acme", 130.0)
    assert incarnation.admission.lapsed(130.0) == ["acme"]


def test_every_key_that_opened_something_has_to_be_usable():
    incarnation = ready()
    incarnation.admission.open("acme", KEY)
    incarnation.admission.open("acme", OTHER)
    permit = incarnation.admission.admit("acme", 101.0)
    assert incarnation.refusal(101.0, permit) is Code.TENANT_UNAVAILABLE
    assert set(incarnation.admission.opened) == {KEY, OTHER}
    incarnation.admission.close("acme")
    incarnation.admission.open("acme", KEY)
    assert incarnation.admission.recheck(permit, 101.0) == 9.0


def test_where_nothing_is_open_the_keys_lease_is_nobodys_matter():
    incarnation = Incarnation()
    incarnation.hear(100.0, "us", "ap")
    assert not incarnation.admission.is_open("acme")
    assert not incarnation.admission.live("acme", 101.0)
    assert incarnation.admission.lapsed(1e9) == []
    permit = incarnation.admission.admit("acme", 101.0)
    assert incarnation.admission.recheck(permit, 101.0) == 9.0, "the control lease alone counts"


def test_a_rollback_ends_everything_at_once():
    incarnation = ready()
    incarnation.admission.open("acme", KEY)
    permit = incarnation.admission.admit("acme", 101.0)
    incarnation.known.forget()
    assert incarnation.refusal(101.0, permit) is Code.UNAVAILABLE
    assert incarnation.admission.lapsed(101.0) == ["acme"]
