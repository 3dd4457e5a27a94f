"""Leases: only an own acknowledged write that was read back renews, and only from its beginning."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kcm_killswitch.model.control_lease import EXPIRED, ControlLease
from kcm_killswitch.model.peer_leases import PeerLeases

from tests.fakes.knowing import leased


def test_a_lease_starts_expired():
    assert ControlLease(10).until() == EXPIRED


def test_an_acknowledged_write_alone_is_not_enough():
    lease = ControlLease(10)
    assert lease.wrote(100.0, lease.seen, 5)
    assert lease.until() == EXPIRED
    lease.delivered(4)
    assert lease.until() == EXPIRED
    lease.delivered(5)
    assert lease.until() == 110.0


def test_it_counts_from_the_beginning_of_the_write():
    lease = ControlLease(10)
    lease.wrote(100.0, lease.seen, 5)
    lease.delivered(9)
    lease.wrote(103.0, lease.seen, 10)
    assert lease.until() == 110.0
    lease.delivered(10)
    assert lease.until() == 113.0


def test_deliveries_alone_renew_nothing():
    lease = ControlLease(10)
    lease.delivered(1000)
    assert lease.until() == EXPIRED


@pytest.mark.parametrize("sequence", [1, 4, 7])
def test_an_acknowledgement_below_what_was_seen_is_a_rollback(sequence):
    lease = ControlLease(10)
    lease.wrote(100.0, lease.seen, 5)
    lease.delivered(7)
    lease.wrote(101.0, lease.seen, 8)
    lease.delivered(8)
    assert not lease.wrote(102.0, lease.seen, sequence)
    assert lease.until() == EXPIRED


def test_what_is_delivered_before_the_acknowledgement_is_no_rollback():
    lease = ControlLease(10)
    seen = lease.seen
    lease.delivered(5)  # the write itself
    lease.delivered(6)  # somebody else's
    assert lease.wrote(100.0, seen, 5)
    assert lease.until() == 110.0


@given(st.lists(st.tuples(st.floats(0, 1e3), st.integers(1, 5)), min_size=1, max_size=30))
def test_the_moment_of_a_sequence_is_never_later_than_its_own_write(steps):
    """An oracle of its own: every write kept in a list, searched from the start."""
    lease, sequence, now, writes = ControlLease(10), 0, 0.0, []
    for pause, gap in steps:
        sequence, now = sequence + gap, now + pause
        assert lease.wrote(now, lease.seen, sequence)
        writes.append((now, sequence))
    for asked in range(sequence + 2):
        known = [t0 for t0, s0 in writes if s0 <= asked]
        assert lease.moment(asked) == (known[-1] if known else None)


@given(st.integers(3, 9), st.data())
def test_a_kill_that_is_durable_in_most_regions_meets_a_reader_that_knows_enough(count, data):
    """Whatever majority has the kill, the regions that keep a reader serving contain one of it."""
    regions = [str(n) for n in range(count)]
    majority = data.draw(st.sets(st.sampled_from(regions), min_size=count // 2 + 1, max_size=count))
    known = data.draw(st.sets(st.sampled_from(regions[1:]), max_size=count - 1))
    peer_leases, lease = PeerLeases(), leased((100.0, 5))
    for region in known:
        peer_leases.learn(region, 5)
    if peer_leases.until("majority", regions[1:], lease, 60) > EXPIRED:
        assert majority & (known | {regions[0]})


def test_after_a_rollback_nothing_is_known():
    peer_leases, lease = PeerLeases(), leased((100.0, 5))
    peer_leases.learn("us", 5)
    peer_leases.forget()
    assert peer_leases.until("all", ["us"], lease, 60) == EXPIRED
