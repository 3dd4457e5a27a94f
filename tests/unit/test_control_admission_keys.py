"""Which tenants a customer's root key opened, and which of them have to be unloaded."""

import os

import pytest
from kcm_killswitch.model.admission import Admission
from kcm_killswitch.model.freshness import Freshness
from kcm_killswitch.model.key_leases import AttestedKey, Target
from kcm_killswitch.model.log_position import LogPosition
from kcm_killswitch.model.open_keys import OpenKeys
from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.revocations import Revocations
from kcm_killswitch.model.timing import Timing

OLD, NEW = (AttestedKey(Target("l", 1, version), "us") for version in ("1", "2"))
END_S = Timing().l1_lease_s


@pytest.fixture
def freshness():
    made = Freshness(Timing())
    first, second = LogPosition(1, os.urandom(16)), LogPosition(2, os.urandom(16))
    for began, mark, key in ((0.0, first, OLD), (5.0, second, NEW)):
        assert made.wrote(began, made.lease.seen, mark)
        assert made.leased(mark, own=True)
        assert made.delivered(mark.sequence)
        assert made.attested(key, mark)
    return made


@pytest.fixture
def admission(freshness):
    registry = Registry()
    return Admission(freshness, Revocations(registry, "eu"), registry, "eu")


def test_only_tenants_of_a_key_that_lapsed_are_unloaded_and_each_once(admission):
    for tenant, key in (("a", OLD), ("b", NEW), ("c", OLD), ("c", NEW)):
        admission.open(tenant, key)
    assert admission.lapsed(END_S - 1) == []
    assert admission.lapsed(END_S) == ["a", "c"]
    assert admission.lapsed(END_S + 5) == ["a", "c", "b"]
    assert set(admission.opened) == {OLD, NEW}


def test_a_tenant_that_is_closed_is_forgotten_under_every_key(admission):
    admission.open("a", OLD)
    admission.open("a", NEW)
    admission.open("b", NEW)
    admission.close("a")
    admission.close("a")
    assert not admission.is_open("a")
    assert set(admission.opened) == {NEW}
    assert admission.lapsed(END_S + 5) == ["b"]


def test_another_name_of_the_same_use_takes_over_what_is_open(freshness, admission):
    for tenant in ("a", "b"):
        admission.open(tenant, OLD)
    admission.open("a", NEW)
    renamed = AttestedKey(OLD.target, "a new session")
    admission.renamed(renamed)
    assert set(admission.opened) == {renamed, NEW}
    # Its own attestation counts, and not the one in the old name.
    assert admission.lapsed(END_S - 1) == ["a", "b"]
    mark = LogPosition(3, os.urandom(16))
    assert freshness.wrote(6.0, freshness.lease.seen, mark)
    assert freshness.leased(mark, own=True)
    assert freshness.delivered(mark.sequence)
    assert freshness.attested(renamed, mark)
    assert admission.lapsed(END_S + 1) == []
    admission.close("a")
    admission.close("b")
    assert set(admission.opened) == set()


def key(number):
    return AttestedKey(Target(f"l{number:05}", 1, "1"), "us")


def test_the_key_whose_tenants_nobody_used_for_longest_comes_first(admission):
    for number, tenant in enumerate("abc"):
        admission.open(tenant, key(number))
    admission.open("d", key(0))
    assert admission.opened.least_used() == key(1)
    admission.used("b")
    assert list(admission.opened) == [key(2), key(0), key(1)]
    admission.used("a")
    admission.used("nobody")
    admission.close("c")
    assert list(admission.opened) == [key(1), key(0)]


def test_what_began_or_ceased_to_be_open_is_told_once(admission):
    admission.open("a", OLD)
    admission.open("b", OLD)
    assert admission.opened.changes() == [OLD.target]
    admission.open("c", OLD)
    admission.close("a")
    assert admission.opened.changes() == []
    admission.close("b")
    admission.close("c")
    assert admission.opened.changes() == [OLD.target]
    assert OLD.target not in admission.opened


def test_a_look_for_ended_leases_asks_for_few_of_many_keys():
    """Counted over a lease in which every key is used again each interval."""
    opened, asked = OpenKeys(), 0
    count, lease_s, every_s, tick_s = 2000, 30.0, 10.0, 0.25
    used = [number * every_s / count for number in range(count)]

    def until(one):
        nonlocal asked
        asked += 1
        return used[int(one.target.link[1:])] + lease_s

    for number in range(count):
        opened.add(key(number), f"t{number}")
    ticks = int(60 / tick_s)
    for tick in range(ticks):
        now = tick * tick_s
        for number in range(count):
            while used[number] + every_s <= now:
                used[number] += every_s
        assert opened.ended(now, until, 0) == []
    assert asked <= ticks * count / 25


def test_leases_that_may_have_become_shorter_are_all_looked_at(freshness, admission):
    for tenant, one in (("a", OLD), ("b", NEW)):
        admission.open(tenant, one)
    assert admission.lapsed(10.0) == []
    freshness.attestations.refuse("l")
    assert admission.lapsed(10.0) == ["a", "b"]
    admission.close("a")
    assert admission.lapsed(10.0) == ["b"]
