"""Which tenants a customer's key opened, and which of them have to be sealed."""

import os

import pytest
from kcm_control.knowledge import Knowledge
from kcm_control.marks import Mark
from kcm_control.proofs import ProofKey, Target
from kcm_control.registry import Registry
from kcm_control.revocation import Revocations
from kcm_control.serving import Serving
from kcm_control.timing import Timing

OLD, NEW = (ProofKey(Target("l", 1, version), "us") for version in ("1", "2"))
END_S = Timing().l1_lease_s


@pytest.fixture
def knowledge():
    made = Knowledge(Timing())
    first, second = Mark(1, os.urandom(16)), Mark(2, os.urandom(16))
    for began, mark, key in ((0.0, first, OLD), (5.0, second, NEW)):
        assert made.wrote(began, made.lease.seen, mark)
        assert made.leased(mark, own=True)
        assert made.delivered(mark.sequence)
        assert made.proven(key, mark)
    return made


@pytest.fixture
def serving(knowledge):
    registry = Registry()
    return Serving(knowledge, Revocations(registry, "eu"), registry, "eu")


def test_only_tenants_of_a_key_that_lapsed_are_sealed_and_each_once(serving):
    for tenant, key in (("a", OLD), ("b", NEW), ("c", OLD), ("c", NEW)):
        serving.open(tenant, key)
    assert serving.lapsed(END_S - 1) == []
    assert serving.lapsed(END_S) == ["a", "c"]
    assert serving.lapsed(END_S + 5) == ["a", "c", "b"]
    assert serving.keys == {OLD, NEW}


def test_a_tenant_that_is_closed_is_forgotten_under_every_key(serving):
    serving.open("a", OLD)
    serving.open("a", NEW)
    serving.open("b", NEW)
    serving.close("a")
    serving.close("a")
    assert not serving.is_open("a")
    assert serving.keys == {NEW}
    assert serving.lapsed(END_S + 5) == ["b"]


def test_another_name_of_the_same_use_takes_over_what_is_open(knowledge, serving):
    for tenant in ("a", "b"):
        serving.open(tenant, OLD)
    serving.open("a", NEW)
    renamed = ProofKey(OLD.target, "a new session")
    serving.renamed(renamed)
    assert serving.keys == {renamed, NEW}
    # Its own proof counts, and not the one in the old name.
    assert serving.lapsed(END_S - 1) == ["a", "b"]
    mark = Mark(3, os.urandom(16))
    assert knowledge.wrote(6.0, knowledge.lease.seen, mark)
    assert knowledge.leased(mark, own=True)
    assert knowledge.delivered(mark.sequence)
    assert knowledge.proven(renamed, mark)
    assert serving.lapsed(END_S + 1) == []
    serving.close("a")
    serving.close("b")
    assert serving.keys == set()
