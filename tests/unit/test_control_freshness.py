"""Leases, marks, peer leases, attestations: what an incarnation may believe, and since when."""

import pytest
from kcm_killswitch.model.control_lease import (
    EXPIRED,
    FOREVER,
    SPACING_S,
    WRITES_KEPT,
    ControlLease,
)
from kcm_killswitch.model.freshness import Freshness
from kcm_killswitch.model.key_leases import Attestations, AttestedKey, Target
from kcm_killswitch.model.log_position import MARKS_KEPT, NOWHERE, LogPosition, LogPositions
from kcm_killswitch.model.peer_leases import PeerLeases, durable_majority, needed_others
from kcm_killswitch.model.timing import Timing

from tests.fakes.knowing import leased

KEY = AttestedKey(Target("link", 1, "7"), "arn:me")


def nonce(number):
    return number.to_bytes(16, "big")


def mark(sequence, of=None):
    return LogPosition(sequence, nonce(of or sequence))


class Incarnation:
    """A ``Freshness`` as the kill switch feeds it."""

    def __init__(self):
        self.known = Freshness(Timing())
        self.known.resumed(0)

    def write(self, t0, sequence, *, read=True):
        assert self.known.wrote(t0, self.known.lease.seen, mark(sequence))
        if read:
            self.read(sequence)
        return mark(sequence)

    def read(self, sequence, *, own=True, of=None):
        told = self.known.leased(mark(sequence, of), own=own)
        return self.known.delivered(sequence) and told

    @property
    def until(self):
        return self.known.lease.until()


# Leases


def test_a_lease_runs_from_the_beginning_of_the_write_once_it_is_read_back():
    lease = ControlLease(10)
    assert lease.until() == EXPIRED
    assert lease.wrote(100.0, lease.seen, 5)
    lease.delivered(4)
    assert lease.until() == EXPIRED
    lease.delivered(5)
    assert lease.until() == 110.0
    lease.delivered(900)
    assert lease.until() == 110.0


@pytest.mark.parametrize("sequence", [1, 7, 8])
def test_an_acknowledgement_at_or_below_what_was_seen_before_it_was_sent_is_a_rollback(sequence):
    lease = leased((100.0, 5), (101.0, 8))
    assert not lease.wrote(102.0, lease.seen, sequence)
    assert lease.until() == EXPIRED
    assert lease.anchor == lease.seen == 0


def test_what_is_delivered_before_the_acknowledgement_is_no_rollback():
    lease = leased((100.0, 5))
    seen = lease.seen
    lease.delivered(7)
    assert lease.wrote(101.0, seen, 6)
    assert lease.until() == 111.0
    assert lease.anchor == 6


def test_an_adopted_write_renews_nothing_and_an_older_one_is_a_rollback():
    lease = leased((100.0, 5))
    assert lease.adopt(9)
    lease.delivered(9)
    assert lease.until() == 110.0
    assert lease.anchor == 9
    assert not lease.adopt(9)
    assert lease.until() == EXPIRED


def test_a_consumer_goes_on_behind_an_own_write_that_was_delivered_never_behind_a_later_one():
    """What lies between the last delivery and a later own write would be skipped."""
    lease = leased((100.0, 5))
    lease.delivered(8)
    assert lease.wrote(103.0, lease.seen, 12)
    assert lease.anchor == 5
    lease.resumed(lease.anchor)
    assert lease.until() == 110.0
    lease.delivered(11)
    assert lease.until() == 110.0
    lease.delivered(12)
    assert lease.until() == 113.0
    assert lease.anchor == 12


def test_a_resume_clamps_what_was_delivered_and_keeps_own_writes():
    lease = leased((100.0, 5), (103.0, 9))
    lease.delivered(20)
    lease.resumed(9)
    assert lease.until() == 113.0
    assert lease.position == 9


def test_however_often_an_incarnation_writes_it_can_date_what_is_a_grace_old():
    """Every question about a kill makes it write; other tenants must not go dark by that."""
    lease, every = ControlLease(10), 0.01
    for number in range(1, 20_001):
        assert lease.wrote(number * every, lease.seen, number)
    moments = {lease.moment(asked) for asked in range(1, 20_001, 10)} - {None}
    assert 200 / SPACING_S <= len(moments) <= WRITES_KEPT
    for age in (0.1, 1, 10, 60, 150):
        asked = 20_000 - int(age / every)
        moment = lease.moment(asked)
        assert moment is not None
        assert asked * every - 2 * SPACING_S <= moment <= asked * every


# LogPositions


def test_another_nonce_at_the_same_sequence_is_not_believed():
    marks = LogPositions()
    marks.add(mark(5))
    assert mark(5) in marks
    assert mark(5, of=6) not in marks
    assert mark(6) not in marks


def test_marks_above_a_resume_are_forgotten_and_the_oldest_make_room():
    marks = LogPositions()
    for sequence in range(1, MARKS_KEPT + 11):
        marks.add(mark(sequence))
    assert mark(10) not in marks
    assert mark(11) in marks
    marks.resumed(50)
    assert mark(50) in marks
    assert mark(51) not in marks
    marks.forget()
    assert mark(50) not in marks


# Peer leases


def test_a_peer_lease_is_dated_by_the_readers_own_latest_write_before_it():
    peer_leases, lease = PeerLeases(), leased((100.0, 5), (103.0, 8))
    peer_leases.learn("us", 7)
    assert peer_leases.until("all", ["us"], lease, 60) == 160.0
    peer_leases.learn("us", 8)
    assert peer_leases.until("all", ["us"], lease, 60) == 163.0
    peer_leases.learn("us", 5)
    assert peer_leases.until("all", ["us"], lease, 60) == 163.0


def test_a_peer_lease_from_before_the_first_own_write_is_worth_nothing():
    peer_leases = PeerLeases()
    peer_leases.learn("us", 4)
    assert peer_leases.until("all", ["us"], leased((100.0, 5)), 60) == EXPIRED


def test_policies_need_all_most_or_none():
    peer_leases, lease = PeerLeases(), leased((100.0, 5), (110.0, 9))
    peer_leases.learn("b", 9)
    assert peer_leases.until("all", ["b", "c"], lease, 60) == EXPIRED
    assert peer_leases.until("majority", ["b", "c"], lease, 60) == 170.0
    assert peer_leases.until("local", ["b", "c"], lease, 60) == FOREVER
    assert peer_leases.until("all", [], lease, 60) == FOREVER
    peer_leases.learn("c", 5)
    assert peer_leases.until("all", ["b", "c"], lease, 60) == 160.0
    assert peer_leases.until("majority", ["b", "c"], lease, 60) == 170.0


@pytest.mark.parametrize("count", range(1, 12))
def test_whoever_knows_enough_others_meets_every_majority_that_has_the_kill(count):
    reader = 1 + needed_others(count)
    assert reader + durable_majority(count) > count


def test_a_late_peer_lease_after_a_rollback_is_worth_nothing():
    incarnation = Incarnation()
    old = incarnation.write(100.0, 50)
    incarnation.known.forget()
    incarnation.known.resumed(0)
    for sequence in range(1, 50):
        incarnation.read(sequence, own=False, of=1000 + sequence)
    incarnation.write(500.0, 60)
    incarnation.read(50, own=False, of=2000)
    assert not incarnation.known.peer_leased("us", old, NOWHERE)
    assert not incarnation.known.knows("us")
    assert incarnation.known.peer_leased("us", mark(50, of=2000), NOWHERE) is True


# Attestations


def test_an_attestation_serves_only_the_very_same_key():
    attestations, lease = Attestations(30), leased((100.0, 5))
    attestations.learn(KEY, 5)
    assert attestations.until(KEY, lease) == 130.0
    for other in (
        AttestedKey(Target("other", 1, "7"), "arn:me"),
        AttestedKey(Target("link", 2, "7"), "arn:me"),
        AttestedKey(Target("link", 1, "8"), "arn:me"),
        AttestedKey(Target("link", 1, "7"), "arn:you"),
    ):
        assert attestations.until(other, lease) == EXPIRED


def test_an_older_attestation_changes_nothing_and_a_refusal_ends_all_of_the_link():
    attestations, lease = Attestations(30), leased((100.0, 5), (103.0, 8))
    attestations.learn(KEY, 8)
    attestations.learn(KEY, 5)
    assert attestations.until(KEY, lease) == 133.0
    other = AttestedKey(Target("other", 1, "7"), "arn:me")
    attestations.learn(other, 8)
    attestations.refuse("link")
    assert attestations.until(KEY, lease) == EXPIRED
    assert attestations.until(other, lease) == 133.0


def test_the_own_mark_is_believed_before_it_is_read_back_and_an_unknown_one_is_not():
    incarnation = Incarnation()
    incarnation.write(100.0, 5)
    own = incarnation.write(103.0, 9, read=False)
    assert not incarnation.known.attested(KEY, mark(9, of=1))
    assert not incarnation.known.attested(KEY, mark(10))
    assert incarnation.known.attested(KEY, own)
    assert incarnation.known.attestations.until(KEY, incarnation.known.lease) == 133.0


# All of it together


def test_nothing_is_known_before_anything_was_written():
    incarnation = Incarnation()
    assert incarnation.known.position is None
    assert incarnation.until == EXPIRED
    incarnation.read(5, own=False)
    assert incarnation.known.peer_leased("us", mark(5), NOWHERE)
    assert incarnation.known.attested(KEY, mark(5))
    assert not incarnation.known.knows("us")
    assert incarnation.known.attestations.until(KEY, incarnation.known.lease) == EXPIRED


@pytest.mark.parametrize("own", [True, False])
def test_another_record_where_the_own_one_was_acknowledged_ends_everything(own):
    incarnation = Incarnation()
    incarnation.write(100.0, 5)
    incarnation.write(103.0, 9, read=False)
    assert not incarnation.read(9, own=own, of=77)
    assert incarnation.until == EXPIRED


def test_no_record_at_all_where_the_own_one_was_acknowledged_ends_everything():
    incarnation = Incarnation()
    incarnation.write(100.0, 5)
    incarnation.write(103.0, 9, read=False)
    assert not incarnation.known.delivered(9)
    assert incarnation.until == EXPIRED


def test_an_own_record_that_a_later_one_replaced_renews_nothing_by_itself():
    """The stream keeps the last of each subject, so a slow consumer never sees the earlier."""
    incarnation = Incarnation()
    incarnation.write(100.0, 5)
    incarnation.write(103.0, 9, read=False)
    incarnation.write(106.0, 12, read=False)
    assert incarnation.read(10, own=False)
    assert incarnation.until == 110.0
    assert incarnation.read(12)
    assert incarnation.until == 116.0
    assert incarnation.known.anchor == 12


def test_an_acknowledgement_of_a_place_that_was_read_as_something_else_ends_everything():
    incarnation = Incarnation()
    incarnation.write(100.0, 5)
    seen = incarnation.known.lease.seen
    assert incarnation.read(6, own=False)
    assert not incarnation.known.wrote(103.0, seen, mark(6, of=88))
    assert incarnation.until == EXPIRED


def test_after_forgetting_nothing_counts_until_the_stream_is_read_from_its_start():
    incarnation = Incarnation()
    incarnation.write(100.0, 5)
    era = incarnation.known.era
    incarnation.known.forget()
    assert incarnation.known.era == era + 1
    assert incarnation.known.wrote(200.0, incarnation.known.lease.seen, mark(50))
    assert incarnation.read(50)
    assert not incarnation.known.peer_leased("us", mark(50), NOWHERE)
    assert not incarnation.known.attested(KEY, mark(50))
    assert incarnation.until == EXPIRED
    assert incarnation.known.anchor == 0, "a consumer that is made now begins at the start"
    incarnation.known.resumed(0)
    assert incarnation.until == EXPIRED
    assert incarnation.read(50)
    assert incarnation.until == 210.0
    assert incarnation.known.anchor == 50


def test_a_resume_dates_what_was_known_back_to_the_anchor_and_drops_nothing():
    incarnation = Incarnation()
    incarnation.write(100.0, 5)
    incarnation.write(103.0, 8)
    incarnation.read(12, own=False)
    incarnation.known.peer_leased("us", mark(12), NOWHERE)
    incarnation.known.attested(KEY, mark(12))
    incarnation.known.resumed(incarnation.known.anchor)
    assert incarnation.known.knows("us")
    assert incarnation.known.peer_leases.moment("us", incarnation.known.lease) == 103.0
    assert incarnation.known.attestations.until(KEY, incarnation.known.lease) == 133.0
    assert incarnation.until == 113.0
    # What comes at that place now may be another thing.
    assert not incarnation.known.peer_leased("us", mark(12), NOWHERE)


def test_a_resume_never_makes_anything_later():
    incarnation = Incarnation()
    incarnation.write(100.0, 5)
    incarnation.write(103.0, 8)
    incarnation.known.peer_leased("us", mark(5), NOWHERE)
    incarnation.known.resumed(8)
    assert incarnation.known.peer_leases.moment("us", incarnation.known.lease) == 100.0
