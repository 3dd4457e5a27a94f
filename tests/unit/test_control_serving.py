"""May a tenant be served, and until when: every reason to refuse, and the smallest remainder."""

from typing import Any

import pytest
from kcm_killswitch.model.admission import Serving
from kcm_killswitch.model.control_lease import FOREVER
from kcm_killswitch.model.freshness import Knowledge
from kcm_killswitch.model.hold_set import HoldRecord
from kcm_killswitch.model.key_leases import ProofKey, Target
from kcm_killswitch.model.log_position import NOWHERE, Mark
from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.revocations import Revocations
from kcm_killswitch.model.timing import Timing
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import Hold
from kcm_schemas.registry import Link, Tenant

KEY = ProofKey(Target("root", 1, "1"), "me")
OTHER = ProofKey(Target("root", 1, "2"), "me")


class Boot:
    """Serves ``acme`` of regions eu, us and ap in eu."""

    def __init__(
        self, *, fence: Any = "all", regions=("eu", "us", "ap"), model: Any = "byok", link=True,
        told=False,
    ):  # fmt: skip
        self.known = Knowledge(Timing())
        self.known.resumed(0)
        self.registry = Registry()
        self.revocations = Revocations(self.registry, "eu")
        self.serving = Serving(self.known, self.revocations, self.registry, "eu", told=told)
        self.sequence = 0
        if link:
            self.revocations.register(Link(link="root", revision=1, uri="x:/y", model=model))
        self.revocations.register(
            Tenant(tenant="acme", revision=1, link="root", regions=list(regions), fence=fence)
        )

    def write(self, now):
        self.sequence += 1
        mark = Mark(self.sequence, self.sequence.to_bytes(16, "big"))
        assert self.known.wrote(now, self.known.lease.seen, mark)
        self.known.leased(mark, own=True)
        self.known.delivered(mark.sequence)
        return mark

    def hear(self, now, *others, proof=None):
        mark = self.write(now)
        for other in others:
            assert self.known.fenced(other, mark, NOWHERE)
        if proof is not None:
            assert self.known.proven(proof, mark)

    def kill(self, number=1, scope: Any = "tenant", target="acme", *, lift=False):
        one = Hold(
            id=bytes([number]) * 16, salt=bytes(16), scope=scope, target=target,
            cause="operator", origin="eu", issued_ms=1, reason="",
        )  # fmt: skip
        return self.revocations.learn(HoldRecord(one, b"raw", b"lift" if lift else None))

    def refusal(self, now, permit=None):
        with pytest.raises(KcmError) as caught:
            _ = self.serving.still(permit, now) if permit else self.serving.begin("acme", now)
        return caught.value.code


def ready(now=100.0, **options):
    boot = Boot(**options)
    boot.hear(now, "us", "ap", proof=KEY)
    return boot


def test_a_tenant_that_is_known_here_and_heard_of_is_served_for_the_smallest_remainder():
    boot = ready()
    boot.serving.open("acme", KEY)
    permit = boot.serving.begin("acme", 101.0)
    assert permit.until == 110.0
    assert boot.serving.still(permit, 103.0) == 7.0


@pytest.mark.parametrize("now", [110.0, 110.5, 1e9])
def test_a_boot_without_a_control_lease_serves_nobody(now):
    assert ready().refusal(now) is Code.UNAVAILABLE


def test_a_boot_that_never_wrote_serves_nobody():
    assert Boot(regions=("eu",)).refusal(0.0) is Code.UNAVAILABLE


def test_a_tenant_that_is_not_registered_or_not_for_this_region_is_unknown():
    boot = ready()
    with pytest.raises(KcmError) as caught:
        boot.serving.begin("beta", 101.0)
    assert caught.value.code is Code.UNKNOWN_TENANT
    assert ready(regions=("us", "ap")).refusal(101.0) is Code.UNKNOWN_TENANT


def test_a_gateway_does_not_say_that_a_tenant_is_unknown_while_no_core_says_what_there_is():
    """It has no memory of its own, and the bucket may have been lost with that of the Cores."""
    boot = ready(told=True)
    with pytest.raises(KcmError, match="no Core of the region says") as caught:
        boot.serving.begin("beta", 101.0)
    assert caught.value.code is Code.UNAVAILABLE
    assert boot.serving.begin("acme", 101.0)
    lease, digests = boot.known.registry, boot.revocations.registry_digests
    lease.heard("core-eu-1", digests, digests, 10.0, 101.0)
    with pytest.raises(KcmError, match="unknown_tenant"):
        boot.serving.begin("beta", 105.0)
    boot.write(110.0)
    with pytest.raises(KcmError, match="no Core of the region says"):
        boot.serving.begin("beta", 112.0)


@pytest.mark.parametrize(
    ("scope", "target"), [("tenant", "acme"), ("link", "root"), ("region", "eu")]
)
def test_a_hold_refuses_whatever_else_is_well(scope, target):
    boot = ready()
    permit = boot.serving.begin("acme", 101.0)
    boot.kill(scope=scope, target=target)
    assert boot.serving.killed("acme")
    assert boot.refusal(101.0) is Code.TENANT_KILLED
    assert boot.refusal(101.0, permit) is Code.TENANT_KILLED


@pytest.mark.parametrize(
    ("scope", "target"), [("tenant", "beta"), ("link", "other"), ("region", "us")]
)
def test_a_hold_on_somebody_else_refuses_nothing(scope, target):
    boot = ready()
    permit = boot.serving.begin("acme", 101.0)
    boot.kill(scope=scope, target=target)
    assert boot.serving.still(permit, 101.0) > 0


def test_what_began_before_a_kill_and_its_lift_has_no_output():
    boot = ready()
    old = boot.serving.begin("acme", 101.0)
    boot.kill()
    boot.kill(lift=True)
    new = boot.serving.begin("acme", 101.0)
    assert boot.refusal(101.0, old) is Code.TENANT_SEALED
    assert boot.serving.still(new, 101.0) > 0
    boot.kill(2)
    boot.kill(2, lift=True)
    assert boot.refusal(101.0, new) is Code.TENANT_SEALED
    assert len({old.generation, new.generation, boot.revocations.generation("acme")}) == 3


@pytest.mark.parametrize(
    ("model", "grace"), [("byok", 60.0), ("hyok", 10.0)]
)  # fmt: skip
def test_fences_end_after_the_grace_of_the_links_model(model, grace):
    boot = ready(model=model)
    for now in range(103, 100 + int(grace) + 1, 3):
        boot.write(float(now))
    boot.write(100.0 + grace - 0.5)
    assert boot.serving.begin("acme", 100.0 + grace - 0.1).until == 100.0 + grace
    assert boot.refusal(100.0 + grace) is Code.UNAVAILABLE


def test_a_link_that_is_not_known_has_the_shorter_grace():
    boot = ready(link=False)
    boot.write(105.0)
    assert boot.serving.begin("acme", 109.0).until == 110.0
    assert boot.refusal(110.0) is Code.UNAVAILABLE


@pytest.mark.parametrize(
    ("fence", "heard", "served"),
    [
        ("all", ("us", "ap"), True),
        ("all", ("us",), False),
        ("majority", ("us",), True),
        ("majority", (), False),
        ("local", (), True),
    ],
)
def test_a_policy_says_how_many_regions_have_to_be_heard(fence, heard, served):
    boot = Boot(fence=fence)
    boot.hear(100.0, *heard)
    if served:
        assert boot.serving.begin("acme", 101.0).until == 110.0
    else:
        assert boot.refusal(101.0) is Code.UNAVAILABLE


def test_a_retired_region_is_not_waited_for_and_is_again_after_the_lift():
    boot = Boot()
    boot.hear(100.0, "us")
    assert boot.refusal(101.0) is Code.UNAVAILABLE
    boot.kill(scope="region", target="ap")
    boot.serving.begin("acme", 101.0)
    boot.kill(scope="region", target="ap", lift=True)
    assert boot.refusal(101.0) is Code.UNAVAILABLE


def test_a_tenant_of_this_region_alone_waits_for_no_other():
    boot = Boot(regions=("eu",))
    boot.write(100.0)
    assert boot.serving.begin("acme", 101.0).until == 110.0
    assert boot.serving.fence_set(boot.serving.known("acme")) == []


def test_an_open_root_is_sealed_when_its_key_was_not_used_for_a_lease():
    boot = ready()
    boot.serving.open("acme", KEY)
    boot.hear(129.0, "us", "ap")
    permit = boot.serving.begin("acme", 129.5)
    assert boot.serving.still(permit, 129.5) == 0.5
    assert boot.serving.live("acme", 129.9)
    assert boot.serving.lapsed(129.9) == []
    assert boot.refusal(130.0, permit) is Code.TENANT_SEALED
    assert not boot.serving.live("acme", 130.0)
    assert boot.serving.lapsed(130.0) == ["acme"]


def test_every_key_that_opened_something_has_to_be_usable():
    boot = ready()
    boot.serving.open("acme", KEY)
    boot.serving.open("acme", OTHER)
    permit = boot.serving.begin("acme", 101.0)
    assert boot.refusal(101.0, permit) is Code.TENANT_SEALED
    assert set(boot.serving.opened) == {KEY, OTHER}
    boot.serving.close("acme")
    boot.serving.open("acme", KEY)
    assert boot.serving.still(permit, 101.0) == 9.0


def test_where_nothing_is_open_the_keys_lease_is_nobodys_matter():
    boot = ready()
    assert not boot.serving.is_open("acme")
    assert not boot.serving.live("acme", 101.0)
    assert boot.serving.lapsed(1e9) == []
    assert boot.serving._l1("acme") == FOREVER


def test_a_rollback_ends_everything_at_once():
    boot = ready()
    boot.serving.open("acme", KEY)
    permit = boot.serving.begin("acme", 101.0)
    boot.known.forget()
    assert boot.refusal(101.0, permit) is Code.UNAVAILABLE
    assert boot.serving.lapsed(101.0) == ["acme"]
