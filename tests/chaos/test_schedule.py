"""Schedules: the same from the same seed, within their time, and never two hands on one thing."""

import itertools

import pytest

from tests.chaos.disks import ALL_STREAMS, STREAMS, Harm
from tests.chaos.schedule import AT_ONCE, AUDITED, HARMS, LASTS, WEIGHTS, Fault, Layout, plan

LAYOUT = Layout(
    cores=("core-1", "core-2"),
    gateways=("gateway-1",),
    servers=("eu-1", "eu-2", "eu-3", "us"),
    nodes=("eu-1", "eu-2", "eu-3"),
    regions=("eu", "us"),
    tenants=("a", "b"),
    links=("key-a", "key-b"),
)


def broken(faults):
    return [fault for fault in faults if fault.kind in WEIGHTS]


def test_a_seed_says_everything():
    assert plan(7, 300, LAYOUT) == plan(7, 300, LAYOUT)
    assert plan(7, 300, LAYOUT).faults != plan(8, 300, LAYOUT).faults


@pytest.mark.parametrize("seed", range(20))
def test_all_ends_in_time_and_nothing_is_in_two_hands(seed):
    faults = plan(seed, 200, LAYOUT).faults
    assert all(fault.at > 0 and fault.seconds > 0 and fault.ends < 200 for fault in faults)
    assert faults == sorted(faults, key=lambda fault: fault.at)
    for one, other in itertools.combinations(broken(faults), 2):
        assert not one.collides(other)
    for fault in broken(faults):
        assert sum(o.at <= fault.at < o.ends for o in broken(faults)) <= AT_ONCE
    keys = [fault for fault in faults if fault.kind == "key"]
    for one, other in itertools.combinations(keys, 2):
        assert one.target != other.target or one.ends < other.at or other.ends < one.at


def test_every_kind_happens_and_two_at_a_time_do():
    seen = {f.kind for seed in range(20) for f in plan(seed, 300, LAYOUT).faults}
    assert seen == {*WEIGHTS, "kill-tenant", "kill-link", "key"}
    assert set(LASTS) == set(WEIGHTS)
    faults = broken(plan(1, 300, LAYOUT).faults)
    assert any(a.at < b.ends and b.at < a.ends for a, b in itertools.combinations(faults, 2))


def test_a_layout_without_a_cluster_has_no_minority():
    alone = Layout(("c",), ("g",), ("eu",), (), ("eu",), ("a",), ("k",))
    kinds = {f.kind for seed in range(10) for f in plan(seed, 300, alone).faults}
    assert not kinds & {"cut-node", "damage-raft", "damage-snapshot", "remove-node"}
    assert kinds >= {"damage-block", "damage-meta", "forget-stream"}


@pytest.mark.parametrize("seed", range(20))
def test_every_fault_of_a_disk_says_what_it_does_to_which_files(seed):
    for fault in plan(seed, 300, LAYOUT).faults:
        if fault.kind in HARMS:
            part, acts = HARMS[fault.kind]
            assert fault.harm.part == part
            assert fault.harm.act in acts
            assert fault.harm.stream in (ALL_STREAMS if fault.kind in AUDITED else STREAMS)
            assert 0 <= fault.harm.place < 1000
            assert fault.how == str(fault.harm)
        else:
            assert fault.harm is None


def test_every_harm_is_drawn():
    drawn = {
        (f.kind, f.harm.act, f.harm.orderly)
        for seed in range(60)
        for f in plan(seed, 300, LAYOUT).faults
        if f.harm
    }
    assert {(kind, act) for kind, act, _ in drawn} == {
        (kind, act) for kind, (_, acts) in HARMS.items() for act in acts
    }
    assert {("damage-block", "flip", True), ("damage-block", "flip", False)} <= drawn
    assert not any(orderly for kind, _, orderly in drawn if kind == "forget-stream")


def test_every_stream_is_harmed():
    drawn = {
        (f.harm.act, f.harm.stream)
        for seed in range(120)
        for f in plan(seed, 300, LAYOUT).faults
        if f.kind in AUDITED
    }
    acts = ("flip", "truncate", "roll-back", "forget")
    assert drawn == {(act, stream) for act in acts for stream in ALL_STREAMS}


def test_only_one_disk_is_harmed_at_a_time_and_a_node_is_removed_once():
    harm = Harm("block", "flip", 1, STREAMS[0], orderly=True)
    eu = Fault(1, "damage-block", "eu-1", 9, harm=harm)
    us = Fault(2, "damage-meta", "us", 9, harm=harm)
    assert eu.collides(us)
    assert Fault(2, "kill-broker", "eu-1", 9).collides(eu)
    assert Fault(2, "remove-node", "eu-2", 9).collides(eu)
    assert not Fault(2, "kill-broker", "us", 9).collides(eu)
    for seed in range(40):
        kinds = [f.kind for f in plan(seed, 600, LAYOUT).faults]
        assert kinds.count("remove-node") <= 1


def test_restarting_everything_is_done_alone():
    everything = Fault(10, "restart-everything", "everything", 2)
    assert everything.collides(Fault(11, "kill-core", "core-1", 5))
    assert not everything.collides(Fault(12, "kill-core", "core-1", 5))
    assert not Fault(1, "cut-region", "eu", 9).collides(Fault(2, "cut-region", "us", 9))
    assert Fault(1, "cut-region", "eu", 9).collides(Fault(2, "cut-backbone", "backbone", 9))
