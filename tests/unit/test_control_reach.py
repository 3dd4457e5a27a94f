"""Holds on regions, whom they reach, and when a kill is complete without a region's word."""

from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kcm_killswitch.model.completeness import Arrival, QuorumNeed, Reach, RegionFacts, hold_status
from kcm_killswitch.model.hold_set import HoldSet, HoldState
from kcm_killswitch.model.peer_leases import needed_others
from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.revocations import Revocations
from kcm_killswitch.model.timing import Timing
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import Hold, Incarnation, Receipt
from kcm_schemas.registry import Link, Tenant
from kcm_schemas.roster import Role

TIMING = Timing()
BOUND = TIMING.incarnation_bound_s(0)
GRACE = TIMING.peer_lease_bound_s("byok")


def record(number=1, scope: Any = "tenant", target="acme", *, lift=None, raw=None):
    one = Hold(
        id=bytes([number]) * 16, salt=bytes(16), scope=scope, target=target,
        cause="operator", origin="eu", issued_ms=1, reason="",
    )  # fmt: skip
    return HoldState(one, raw or bytes([number]), lift)


def known(*tenants):
    revocations = Revocations(Registry(), "eu")
    for name in tenants or ("acme", "beta"):
        revocations.register(
            Tenant(
                tenant=name,
                revision=1,
                link=f"{name}-root",
                regions=["eu", "us"],
                region_quorum="all",
            )
        )
    return revocations


# A hold on a region


def test_retiring_this_region_kills_and_purges_every_tenant_in_it():
    revocations = known()
    learned = revocations.learn(record(scope="region", target="eu"))
    assert learned.purge == ("acme", "beta")
    assert revocations.killed("acme")
    assert revocations.killed("nobody knows this one")
    assert [one.hold.scope for one in revocations.active("acme")] == ["region"]
    with pytest.raises(KcmError) as caught:
        revocations.begin("beta")
    assert caught.value.code is Code.TENANT_KILLED


def test_retiring_another_region_kills_nobody_here():
    revocations = known()
    generation = revocations.begin("acme")
    learned = revocations.learn(record(scope="region", target="us"))
    assert learned.changed
    assert learned.purge == ()
    assert revocations.retired("us")
    assert not revocations.retired("eu")
    revocations.still("acme", generation)


def test_a_region_is_back_when_every_hold_on_it_is_lifted():
    revocations = known()
    for number in (1, 2):
        revocations.learn(record(number, "region", "eu"))
    revocations.learn(record(1, "region", "eu", lift=b"l"))
    assert revocations.retired("eu")
    assert revocations.killed("acme")
    revocations.learn(record(2, "region", "eu", lift=b"l"))
    assert not revocations.retired("eu")
    assert revocations.begin("acme") == 2


def test_a_tenant_that_is_registered_after_a_hold_on_its_link_is_killed():
    revocations = known("beta")
    revocations.learn(record(scope="link", target="acme-root"))
    revocations.register(
        Tenant(tenant="acme", revision=1, link="acme-root", regions=["eu"], region_quorum="all")
    )
    assert revocations.killed("acme")
    assert not revocations.killed("beta")
    assert revocations.held_links == ["acme-root"]


def test_a_record_that_changed_purges_and_ends_what_is_under_way():
    revocations = known()
    generation = revocations.begin("acme")
    link = Link(link="acme-root", revision=1, uri="x:/y", model="byok")
    assert revocations.register(link).purge == ("acme",)
    with pytest.raises(KcmError):
        revocations.still("acme", generation)
    assert revocations.register(link).purge == ()


# Sets of holds


def test_two_sets_share_a_digest_exactly_when_they_say_the_same():
    one, two = record(1), record(2)
    assert HoldSet.of([one, two]).digest == HoldSet.of([two, one, one]).digest
    assert HoldSet.of([one, two]).digest == HoldSet.of([record(1, raw=b"x"), two]).digest
    sets = [[], [one], [two], [one, two], [record(1, lift=b"l"), two]]
    assert len({HoldSet.of(records).digest for records in sets}) == len(sets)


@given(st.lists(st.integers(1, 40), unique=True), st.integers(1, 7))
def test_a_cursor_visits_every_hold_once_in_order(numbers, size):
    holds = HoldSet.of(record(number) for number in numbers)
    after, seen = b"", []
    while page := list(islice(holds.in_order(after), size)):
        seen += page
        after = page[-1].hold.id
    assert [one.hold.id for one in seen] == sorted(bytes([number]) * 16 for number in numbers)


# Completeness


def incarnation(name, first=1, silent_ms=0):
    return Incarnation(
        instance=name, incarnation=name.encode().ljust(16), role=Role.CORE, first=first, latest=9,
        lease_ms=1, silent_ms=silent_ms, quiet_ms=0, roster=1,
    )  # fmt: skip


def receipts(*names, as_incarnation=None):
    return {
        (name, (as_incarnation or name).encode().ljust(16)): Arrival(
            Receipt(
                hold_id=record().hold.id,
                instance=name,
                incarnation=(as_incarnation or name).encode().ljust(16),
                role=Role.CORE,
                region="eu",
                keys=2,
                purge_us=10,
                unkept="",
                reached=bytes(32),
            ),
            after_ms=3,
        )
        for name in names
    }


def durable(name, since=0.0, at=10):
    return RegionFacts(at, [incarnation(name)], since, watched_s=BOUND)


def status(regions, *names, reach=None, got=None):
    told = receipts(*names) if got is None else got
    return hold_status(record(), regions, told, reach or Reach(), TIMING)


def how(found, region):
    return next(one.how for one in found.regions if one.region == region)


def needs(*regions, policy: Any = "all", retired=0):
    return Reach([QuorumNeed(frozenset(regions), policy, "byok", retired)], closed=True)


def test_a_receipt_of_another_incarnation_of_the_same_instance_does_not_count():
    found = status({"eu": durable("a")}, got=receipts("a", as_incarnation="another"))
    assert not found.complete
    assert found.incarnations[0].how == "waiting"


def test_nothing_is_complete_that_is_durable_nowhere():
    for facts in (RegionFacts(0, [incarnation("a")], 1e9), RegionFacts(10, [], 1e9), None):
        assert not status({"eu": facts}, "a", reach=needs("eu")).complete


def test_an_incarnation_counts_by_receipt_by_a_later_start_or_by_timer_and_not_before():
    def one(first, since, *names):
        silent_ms = int(2000 * BOUND) if first > 10 else 0
        facts = RegionFacts(10, [incarnation("a", first, silent_ms)], since, watched_s=BOUND)
        found = status({"eu": facts}, *names)
        assert found.complete == (found.incarnations[0].how != "waiting")
        return found.incarnations[0].how

    assert one(1, 0.0) == "waiting"
    assert one(1, 0.0, "a") == "receipt"
    assert one(11, 0.0) == "started-after"
    assert one(10, 0.0) == "waiting"
    assert one(0, 0.0) == "waiting"
    assert one(1, BOUND - 0.01) == "waiting"
    assert one(1, BOUND) == "lease-ended"


@pytest.mark.parametrize(
    ("policy", "since", "expected"),
    [
        ("all", GRACE - 0.01, "waiting"),
        ("all", GRACE, "leases-ended"),
        ("local", 1e9, "unbounded"),
        ("majority", 1e9, "waiting"),
    ],
)
def test_a_region_that_is_silent_ends_with_its_peer_leases(policy, since, expected):
    """Of two regions, none is most of them without the other."""
    regions = {"eu": durable("a", since), "us": None}
    found = status(regions, "a", reach=needs("eu", "us", policy=policy))
    assert how(found, "us") == expected
    assert found.complete == (expected == "leases-ended")


def test_under_majority_a_silent_region_ends_a_grace_after_most_have_the_hold():
    reach = needs("eu", "us", "ap", policy="majority")

    def silent(eu, us):
        regions = {"eu": durable("a", eu), "us": durable("b", us), "ap": None}
        return how(status(regions, "a", "b", reach=reach), "ap")

    assert silent(1e9, GRACE - 0.01) == "waiting"
    assert silent(GRACE, GRACE) == "leases-ended"


def test_a_region_where_the_hold_is_stored_but_no_incarnation_is_registered_did_not_answer():
    regions = {"eu": RegionFacts(10, [], 1e9), "us": None}
    assert how(status(regions, reach=needs("eu", "us")), "us") == "waiting"


@pytest.mark.parametrize("scope", ["link", "region", "unknown tenant"])
def test_what_may_reach_somebody_unknown_waits_for_the_region_itself(scope):
    """A link, and whatever else is not closed."""
    reach = Reach(needs("eu", "us").tenants, closed=False) if scope == "link" else Reach()
    found = status({"eu": durable("a", 1e9), "us": None}, "a", reach=reach)
    assert how(found, "us") == "unbounded"
    assert not found.complete


def test_of_several_tenants_the_slowest_decides():
    reach = Reach(
        [
            QuorumNeed(frozenset({"eu", "us"}), "all", "hyok"),
            QuorumNeed(frozenset({"eu", "us"}), "all", "byok"),
        ],
        closed=True,
    )
    since = TIMING.peer_lease_bound_s("hyok")
    assert how(status({"eu": durable("a", since), "us": None}, "a", reach=reach), "us") == "waiting"
    facts = {"eu": durable("a", GRACE), "us": None}
    assert how(status(facts, "a", reach=reach), "us") == "leases-ended"


def test_incarnations_of_a_region_that_ended_by_its_peer_leases_are_not_waited_for():
    regions = {"eu": durable("a", GRACE), "us": RegionFacts(0, [incarnation("z")], 0.0)}
    found = status(regions, "a", reach=needs("eu", "us"))
    assert found.complete
    assert [one.instance for one in found.incarnations] == ["a"]


@pytest.mark.parametrize("count", range(2, 9))
def test_a_silent_region_that_has_not_heard_of_a_retirement_still_has_to_be_without_peer_leases(
    count,
):
    """It still counts the retired region, and may hear nobody but that one."""
    names = [f"r{n}" for n in range(count)]
    for retired in range(1, count - 1):
        for having in range(1, count - retired):
            in_service = names[: count - retired]
            silent, having_it = in_service[-1], in_service[:having]
            regions = {
                name: durable(name, 1e9) if name in having_it else None for name in in_service
            }
            reach = needs(*in_service, policy="majority", retired=retired)
            found = status(regions, *having_it, reach=reach)
            may_hear = count - 1 - having  # the retired ones, and others without the hold
            if silent not in having_it and may_hear >= needed_others(count):
                assert how(found, silent) != "leases-ended", (count, retired, having)


def test_a_hold_that_is_repeated_reads_no_records_again(monkeypatch):
    """Until one of them is another one: a tenant moved to the link, or left the roster."""
    revocations, read = known("acme"), []
    one = record(scope="link", target="acme-root")
    real = Registry.reached
    monkeypatch.setattr(
        Registry, "reached", lambda self, names: read.append(list(names)) or real(self, names)
    )
    first = revocations.reached(one)
    assert [revocations.reached(one) for _ in range(100)] == [first] * 100
    assert read == [["acme"]]
    other = Tenant(tenant="beta", revision=1, link="acme-root", regions=["eu"], region_quorum="all")
    revocations.register(other)
    second = revocations.reached(one)
    assert second != first
    revocations.unregister(other)
    assert revocations.reached(one) == first
    assert len(read) == 3
