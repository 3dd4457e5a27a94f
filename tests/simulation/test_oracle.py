"""The oracle notices every kind of history that must not be, and lets pass what may be."""

import pytest
from kcm_core.providers.state import L1State
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code
from kcm_schemas.control import Hold, Lift
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind
from kcm_trust.verify import hold_id

from tests.simulation.history import Bounds, TenantFacts
from tests.simulation.l1 import Answer, CustomerKeys
from tests.simulation.loop import SimLoop
from tests.simulation.oracle import Oracle, Violation
from tests.simulation.trust import SimVerifier, identity, roster

BOUNDS = Bounds(
    control_lease_s=10,
    grace_byok_s=60,
    grace_hyok_s=20,
    l1_lease_s=30,
    l1_lease_hyok_s=15,
    clock_error=0.01,
)
OPERATION = ("core-eu", b"b", 1)


class Rig:
    """A world in which a test moves the time itself."""

    def __init__(self, policy="all", model="byok", uris=None, apart=False, **bounds):
        self.loop = SimLoop()
        self.keys = CustomerKeys(self.loop, ["eu", "us", "ap"])
        self.keys.create("u", 1)
        self.verifier = SimVerifier(
            roster([("core-eu", Role.CORE, "eu")], ["ada", "bob"], ["eu", "us", "ap"])
        )
        regions = ("eu", "us", "ap")
        tenants = [
            TenantFacts("acme", "link", "u", regions, policy, model),
            TenantFacts("other", "else", "v", regions, policy, model),
        ]
        self.keys.create("v", 1)
        values = {name: getattr(BOUNDS, name) for name in BOUNDS.__slots__}
        self.oracle = Oracle(
            self.loop, self.verifier, tenants, Bounds(**{**values, **bounds}), self.keys, uris,
            apart=apart,
        )  # fmt: skip

    def hold(self, scope="tenant", target="acme", cause="operator", by="ada", salt=b"s" * 16):
        hold = Hold(
            id=bytes(16), salt=salt, scope=scope, target=target, cause=cause, origin="eu",
            issued_ms=1, reason="",
        )  # fmt: skip
        hold = hold.model_copy(update={"id": hold_id(hold)})
        return hold.id, encode(identity(by).sign(Kind.HOLD, hold))

    def lift(self, raw, by="ada"):
        return encode(identity(by).sign(Kind.LIFT, Lift(hold=raw, issued_ms=2, reason="")))

    def use(self, at, region, state=L1State.ENABLED):
        self.loop.now = at
        for uri in self.keys.keys:
            for told in self.keys.on_answer:
                told(Answer(uri, region, "somebody", b"b", state, False))

    def accept(self, at, region="eu", tenant="acme", *, used=True):
        if used:
            self.use(at, region)
        self.loop.now = at
        self.oracle.accepted(tenant, region, "decrypt", at - 0.001)

    @property
    def broken(self):
        failure = self.loop.failure
        assert failure is None or isinstance(failure, Violation)
        return failure.invariant if failure else None


def killed(rig, at=0.0, regions=("eu",), **what):
    found, raw = rig.hold(**what)
    rig.loop.now = at
    rig.oracle.issued(raw, "test")
    for region in regions:
        rig.oracle.stored(region, raw)
    return found, raw


def test_nothing_is_accepted_after_completion_until_the_lift():
    rig = Rig()
    found, raw = killed(rig)
    rig.accept(1.0)
    rig.oracle.complete(found)
    rig.accept(2.0, tenant="other")
    assert rig.broken is None
    rig.oracle.issued(rig.lift(raw), "lifted by ada")
    rig.accept(3.0)
    assert rig.broken is None
    rig = Rig()
    found, _ = killed(rig)
    rig.oracle.complete(found)
    rig.accept(0.001)
    assert rig.broken == 1


def test_an_answer_in_flight_is_excused_only_where_that_is_asked_for():
    rig = Rig(excuse_in_flight=True)
    found, _ = killed(rig)
    rig.loop.now = 1.0
    rig.oracle.complete(found)
    rig.use(2.0, "eu")
    rig.oracle.accepted("acme", "eu", "decrypt", 0.5)
    assert rig.broken is None
    rig.oracle.accepted("acme", "eu", "decrypt", 1.5)
    assert rig.broken == 1


@pytest.mark.parametrize(
    ("policy", "model", "durable", "region", "limit"),
    [
        ("all", "byok", ("eu",), "eu", 10 / 0.99),
        ("all", "byok", ("eu",), "us", 60 / 0.99),
        ("all", "hyok", ("eu",), "us", 20 / 0.99),
        ("all", "hyok", ("eu", "us"), "us", 10 / 0.99),
        ("majority", "byok", ("eu", "us"), "ap", 60 / 0.99),
    ],
)
def test_the_bound(policy, model, durable, region, limit):
    for late in (-0.01, 0.01):
        rig = Rig(policy, model)
        killed(rig, 100.0, durable)
        rig.accept(100.0 + limit + late, region)
        assert rig.broken == (2 if late > 0 else None)


@pytest.mark.parametrize(("policy", "durable"), [("local", ("eu", "us")), ("majority", ("eu",))])
def test_where_no_bound_is_claimed_none_is_checked(policy, durable):
    rig = Rig(policy)
    killed(rig, 0.0, durable)
    rig.accept(10_000.0, "ap")
    assert rig.broken is None


def test_a_hold_on_a_link_reaches_its_tenants_and_nobody_else():
    rig = Rig()
    killed(rig, scope="link", target="link")
    rig.accept(1_000.0, tenant="other")
    assert rig.broken is None
    rig.accept(1_000.0)
    assert rig.broken == 2


def test_a_tenant_that_moves_is_reached_by_its_new_link_within_the_later_bound():
    for late, broken in ((-0.01, None), (0.01, 2)):
        rig = Rig(uris={"new": "v"})
        killed(rig, 0.0, scope="link", target="new")
        rig.accept(500.0)
        rig.oracle.links.offered("acme", "eu", 2, "new")
        rig.accept(600.0)
        rig.oracle.accepted_record(rig.oracle.links, "acme", "eu", 2, "new")
        rig.accept(600.0 + 12 / 0.99 + late)
        assert rig.broken == broken


def test_nobody_serves_by_an_older_record_after_the_bound():
    for late, broken in ((-0.01, None), (0.01, 8)):
        rig = Rig()
        acme = rig.oracle.tenants["acme"]
        rig.oracle.accepted_record(rig.oracle.links, "acme", "eu", 2, "new")
        rig.loop.now = 12 / 0.99 + late
        rig.oracle.serves("gw-eu", acme, "eu", ["new"])
        rig.oracle.serves("gw-us", acme, "us", ["link"])
        assert rig.broken is None
        rig.oracle.serves("gw-eu", acme, "eu", ["link"])
        assert rig.broken == broken


def test_of_a_fork_both_links_count():
    rig = Rig()
    acme = rig.oracle.tenants["acme"]
    for link in ("one", "two"):
        rig.oracle.accepted_record(rig.oracle.links, "acme", "eu", 2, link)
    rig.loop.now = 100.0
    rig.oracle.serves("gw-eu", acme, "eu", ["one", "two"])
    assert rig.broken is None
    rig.oracle.serves("gw-eu", acme, "eu", ["two"])
    assert rig.broken == 8


def test_nobody_can_say_that_a_kill_has_reached_who_came_after_it():
    rig = Rig()
    found, _ = killed(rig, scope="link", target="new")
    acme, hold = rig.oracle.tenants["acme"], rig.oracle.holds[found]
    rig.loop.now = 5.0
    rig.oracle.accepted_record(rig.oracle.links, "acme", "eu", 2, "new")
    assert rig.oracle.reach.reaches(hold, acme, "eu")
    assert not rig.oracle.reach.kills(hold, acme, "eu", 4.9)
    assert rig.oracle.reach.kills(hold, acme, "eu", 5.0)
    assert not rig.oracle.reach.reaches(hold, acme, "us")


def test_a_keys_hold_counts_where_its_own_region_has_a_tenant_on_the_link():
    rig = Rig(apart=True)
    rig.oracle.tenants["there"] = TenantFacts("there", "link", "u", ("sa",), "all", "byok")
    found, _ = killed(rig, scope="link", target="link")
    hold = rig.oracle.holds[found]
    assert rig.oracle.reach.reaches(hold, rig.oracle.tenants["acme"], "us")
    hold.cause, hold.origin = "l1", "sa"
    assert not rig.oracle.reach.reaches(hold, rig.oracle.tenants["acme"], "us")
    hold.origin = "ap"
    assert rig.oracle.reach.reaches(hold, rig.oracle.tenants["acme"], "us")


def test_nobody_is_killed_by_a_move():
    rig = Rig()
    rig.loop.now = 5.0
    rig.oracle.accepted_record(rig.oracle.links, "acme", "eu", 2, "new")
    rig.oracle.operations.purged("gw-eu", b"b", "acme")
    rig.oracle.refused("acme", "eu", Code.TENANT_UNAVAILABLE)
    assert rig.broken is None
    rig.oracle.refused("acme", "eu", Code.TENANT_KILLED)
    assert rig.broken == 7


def test_where_a_registry_was_set_back_somebody_may_know_no_tenant():
    rig = Rig()
    rig.oracle.damaged.add("eu")
    rig.oracle.refused("acme", "eu", Code.UNKNOWN_TENANT)
    assert rig.broken is None
    rig.oracle.refused("acme", "us", Code.UNKNOWN_TENANT)
    assert rig.broken == 7


def test_one_lift_does_not_end_another_hold():
    rig = Rig()
    _, first = killed(rig)
    killed(rig, salt=b"t" * 16, by="bob")
    rig.oracle.issued(rig.lift(first), "lifted by ada")
    rig.accept(1_000.0)
    assert rig.broken == 2


def test_an_operators_hold_is_lifted_by_an_operator_alone():
    rig = Rig()
    _, raw = killed(rig)
    rig.oracle.issued(rig.lift(raw), "broadcast")
    assert rig.broken == 1


@pytest.mark.parametrize(("after", "broken"), [(7.9, 1), (8.1, None)])
def test_a_keys_hold_is_lifted_when_the_key_has_settled(after, broken):
    rig = Rig(settle_s=8.0, clock_error=0.001)
    for told in rig.keys.on_answer:
        told(Answer("u", "eu", "core-eu", b"b", L1State.DISABLED, False))
    _, raw = killed(rig, scope="link", target="link", cause="l1", by="core-eu")
    rig.loop.now += after
    rig.oracle.issued(rig.lift(raw, by="core-eu"), "broadcast")
    assert rig.broken == broken


@pytest.mark.parametrize(("model", "lease"), [("byok", 30), ("hyok", 15)])
def test_everything_accepted_lies_within_the_lease_of_a_use_in_its_region(model, lease):
    rig = Rig(model=model)
    for at, region in ((2.0, "eu"), (50.0, "us")):
        rig.use(at, region)
    rig.use(50.0, "eu", L1State.DISABLED)
    rig.accept(2 + lease / 0.99 - 0.01, used=False)
    assert rig.broken is None
    rig.accept(2 + lease / 0.99 + 0.01, used=False)
    assert rig.broken == 2


def test_where_a_key_was_never_used_nothing_is_accepted():
    rig = Rig()
    rig.use(0.0, "us")
    rig.accept(0.1, used=False)
    assert rig.broken == 2


@pytest.mark.parametrize("overtaken", [True, False])
def test_no_output_of_what_a_purge_overtook(overtaken):
    rig = Rig()
    rig.oracle.operations.began(OPERATION, "acme")
    reached = rig.oracle.operations.purged("core-eu", b"b", "acme" if overtaken else "other")
    rig.oracle.operations.output(OPERATION)
    assert (reached, rig.broken) == ((1, 3) if overtaken else (0, None))


def test_a_purge_of_another_incarnation_overtakes_nothing_here():
    rig = Rig()
    rig.oracle.operations.began(OPERATION, "acme")
    assert rig.oracle.operations.purged("core-eu", b"c", "acme") == 0
    rig.oracle.operations.output(OPERATION)
    assert rig.broken is None


@pytest.mark.parametrize(
    ("state", "wrong", "opened", "broken"),
    [
        (L1State.UNREACHABLE, False, False, 5),
        (L1State.INVALID, False, False, 5),
        (L1State.DISABLED, False, False, None),
        (L1State.FORBIDDEN, True, False, 5),
        (L1State.FORBIDDEN, True, True, None),
    ],
)
def test_only_a_refusal_makes_a_hold(state, wrong, opened, broken):
    rig = Rig()
    states = ([(L1State.ENABLED, False)] if opened else []) + [(state, wrong)]
    for one, bad in states:
        answer = Answer("u", "eu", "core-eu", b"b", one, bad)
        for told in rig.keys.on_answer:
            told(answer)
    killed(rig, scope="link", target="link", cause="l1", by="core-eu")
    assert rig.broken == broken


def test_others_are_refused_with_codes_that_pass():
    rig = Rig()
    rig.oracle.refused("other", "eu", Code.UNAVAILABLE)
    killed(rig)
    rig.oracle.refused("acme", "eu", Code.TENANT_KILLED)
    assert rig.broken is None
    rig.oracle.refused("other", "eu", Code.TENANT_KILLED)
    assert rig.broken == 7


def test_a_fault_of_ours_is_never_an_answer():
    rig = Rig()
    killed(rig)
    rig.oracle.refused("acme", "eu", Code.INTERNAL)
    assert rig.broken == 7


def test_agreement_is_by_the_oracles_own_history():
    rig = Rig()
    first, raw = killed(rig)
    second, _ = killed(rig, salt=b"t" * 16)
    rig.oracle.issued(rig.lift(raw), "lifted by ada")
    assert rig.oracle.agree({"a": {first: True, second: False}}) == []
    assert len(rig.oracle.agree({"a": {first: False}, "b": {}})) == 4


def test_a_forged_hold_is_none():
    rig = Rig()
    _, raw = rig.hold(by="core-eu")
    assert rig.oracle.issued(raw, "test") is None
    assert rig.oracle.holds == {}
