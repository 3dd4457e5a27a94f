"""Registered incarnations: how long each was silent, and since when none was missed."""

import pytest
from kcm_killswitch.model.incarnations import (
    GONE_S,
    INCARNATIONS_MAX,
    INCARNATIONS_PER_INSTANCE_MAX,
    LEASE_MAX_MS,
    NONCES_KEPT,
    SPACING_S,
    Incarnations,
)
from kcm_killswitch.model.stream_watch import Watch
from kcm_killswitch.model.timing import Timing
from kcm_schemas.control import Lease
from kcm_schemas.roster import Role

INCARNATION = b"b" * 16
BOUND = Timing().incarnation_bound_s(0)


class Stream:
    """Feeds lease entries as a consumer would: everything is delivered at its sequence."""

    def __init__(self):
        self.records = Incarnations()
        self.records.resumed(0, 0.0)
        self.sequence = 0
        self.nonces = 0

    def pass_by(self, now):
        """Something else was stored."""
        self.sequence += 1
        self.records.delivered(self.sequence, now)
        return self.sequence

    def lease(
        self,
        now,
        incarnation=INCARNATION,
        instance="gw",
        nonce=None,
        first=1,
        lease_ms=10_000,
        ended=False,
    ):
        self.nonces += 1
        made = Lease(
            instance=instance, incarnation=incarnation, role=Role.GATEWAY, region="eu",
            nonce=nonce or self.nonces.to_bytes(16, "big"), first=first, lease_ms=lease_ms,
            holds=bytes(32), registry=[bytes(16)] * 16, roster=1, ended=ended,
        )  # fmt: skip
        self.records.take(made, self.pass_by(now), now)
        return made

    def silent(self, now, place=0):
        (found,) = self.records.registered(now, place)
        return found.silent_ms / 1000

    def quiet(self, now):
        (found,) = self.records.registered(now, 1)
        return found.quiet_ms / 1000


@pytest.fixture
def stream():
    return Stream()


# The watch


def test_a_watch_lasts_while_nothing_is_skipped():
    watch = Watch()
    assert watch.age_s(5.0) == 0.0
    watch.resumed(10, 5.0)
    assert watch.delivered(11, 6.0)
    assert watch.delivered(12, 7.0)
    assert watch.age_s(9.0) == 4.0


@pytest.mark.parametrize("sequence", [14, 12, 3])
def test_a_watch_begins_anew_where_a_sequence_was_skipped_or_came_again(sequence):
    watch = Watch()
    watch.resumed(10, 5.0)
    watch.delivered(11, 6.0)
    watch.delivered(12, 7.0)
    assert not watch.delivered(sequence, 8.0)
    assert watch.age_s(9.0) == 1.0
    assert watch.delivered(sequence + 1, 9.0)


def test_a_consumer_that_is_made_anew_and_a_doubt_begin_a_watch():
    watch = Watch()
    watch.resumed(0, 0.0)
    watch.resumed(10, 5.0)
    assert watch.age_s(6.0) == 1.0
    watch.doubted(7.0)
    assert watch.age_s(8.0) == 1.0


def test_a_watch_says_how_long_it_had_lasted_when_something_in_it_was_noted():
    watch = Watch()
    watch.resumed(10, 5.0)
    watch.delivered(11, 6.0)
    assert watch.before_s(11, 6.0) == 1.0
    assert watch.before_s(10, 6.0) == 0.0  # it lies before the watch
    assert watch.before_s(11, 4.0) == 0.0  # it was noted before it


# How long an incarnation was silent


def test_an_incarnation_is_silent_since_its_last_entry(stream):
    stream.lease(3.0)
    stream.lease(9.0)
    assert stream.silent(20.0) == 11.0


def test_only_records_below_the_hold_count(stream):
    stream.lease(3.0)
    place = stream.pass_by(5.0)
    stream.lease(9.0)
    assert stream.silent(20.0, place) == 17.0


def test_an_incarnation_without_an_entry_below_the_hold_is_silent_for_as_long_as_the_watch(stream):
    place = stream.pass_by(5.0)
    stream.lease(9.0)
    assert stream.silent(20.0, place) == 20.0


def test_an_incarnation_that_writes_above_the_hold_is_not_quiet(stream):
    """Though it is silent, for what it wrote below is long ago."""
    stream.records.resumed(0, 0.0)
    stream.lease(9.0)
    place = stream.pass_by(10.0)
    for now in (15.0, 20.0, 25.0):
        stream.lease(now)
    assert stream.silent(30.0, place) == 21.0
    assert stream.quiet(30.0) == 5.0


def test_records_that_come_together_count_as_the_last_of_them(stream):
    """However often it writes, what is kept is bounded, and silence never too long."""
    for number in range(1, 2000):
        stream.lease(number * SPACING_S / 10)
    end = 2000 * SPACING_S / 10
    silences = {stream.silent(end, place) for place in range(1, 2001)}
    assert 2 < len(silences) <= 2 * GONE_S / SPACING_S
    for place in range(1900, 2000):
        written = (place - 1) * SPACING_S / 10
        assert end - written - 2 * SPACING_S <= stream.silent(end, place) <= end - written + 0.001


@pytest.mark.parametrize("what", ["a gap", "a consumer made anew", "a doubt"])
def test_nothing_that_was_heard_before_the_watch_counts(stream, what):
    stream.lease(3.0)
    stream.lease(9.0)
    if what == "a gap":
        stream.records.delivered(stream.sequence + 2, 30.0)
    elif what == "a doubt":
        stream.records.doubted(30.0)
    else:
        stream.records.resumed(stream.sequence, 30.0)
    assert stream.silent(31.0) == 1.0


def test_a_record_that_is_delivered_again_is_not_heard_again(stream):
    record = stream.lease(3.0)
    stream.records.resumed(0, 10.0)
    stream.records.delivered(1, 20.0)
    stream.records.take(record, 1, 20.0)
    assert stream.silent(25.0) == 15.0
    assert stream.records.registered(3.0 + GONE_S) == []


# What somebody else put into an incarnation's place


def test_an_old_entry_in_another_place_marks_its_incarnation(stream):
    first = stream.lease(3.0, first=0)
    stream.lease(6.0)
    stream.lease(9.0, nonce=first.nonce, first=0)
    assert stream.silent(60.0) == 0.0


def test_an_old_entry_keeps_no_incarnation_registered(stream):
    old = stream.lease(3.0)
    for now in range(10, int(GONE_S), 10):
        stream.lease(float(now), nonce=old.nonce)
    assert stream.records.registered(2.9 + GONE_S) != []
    assert stream.records.registered(3.0 + GONE_S) == []


def test_an_entry_that_states_a_later_start_than_its_place_marks_its_incarnation(stream):
    """It was written in a stream that was lost, where sequences were higher."""
    stream.lease(3.0, first=500)
    assert stream.silent(60.0) == 0.0


def test_what_cannot_be_verified_marks_the_incarnation_whose_subject_it_has(stream):
    stream.lease(3.0)
    stream.records.tampered("gw", INCARNATION, 5.0)
    assert stream.silent(60.0) == 0.0
    assert stream.records.watch.age_s(60.0) == 60.0


def test_what_cannot_be_verified_under_an_unknown_name_ends_the_watch(stream):
    stream.records.tampered("gw", INCARNATION, 5.0)
    assert stream.records.watch.age_s(60.0) == 55.0


@pytest.mark.parametrize(("back", "silent"), [(NONCES_KEPT, 0.0), (NONCES_KEPT + 1, 1.0)])
def test_the_nonces_that_are_remembered_are_bounded(stream, back, silent):
    """A known one shows that the entry is a copy; one that was forgotten is heard as a new one."""
    nonces = [stream.lease(float(number)).nonce for number in range(5 * NONCES_KEPT)]
    stream.lease(float(len(nonces)), nonce=nonces[-back])
    assert stream.silent(len(nonces) + 1.0) == silent


# Who is kept


def test_nobody_is_pruned_before_the_own_lease_has_ended(stream):
    stream.lease(0.0, lease_ms=LEASE_MAX_MS)
    ends = Timing(clock_error=0.1).incarnation_bound_s(LEASE_MAX_MS / 1000)
    assert stream.records.registered(ends - 0.01) != []
    assert stream.records.registered(2 * ends) == []


def test_a_lease_that_no_timing_allows_counts_as_the_longest(stream):
    """Else whoever claims it keeps every kill from being complete."""
    stream.lease(0.0, lease_ms=(1 << 32) - 1)
    assert stream.records.registered(1.0)[0].lease_ms == LEASE_MAX_MS


def test_no_incarnation_is_pushed_out_by_others_of_its_instance(stream):
    stream.lease(0.0)
    for number in range(5 * INCARNATIONS_PER_INSTANCE_MAX):
        stream.lease(1.0, incarnation=number.to_bytes(16, "big"))
    known = stream.records.registered(2.0)
    assert len(known) == INCARNATIONS_PER_INSTANCE_MAX
    assert INCARNATION in {one.incarnation for one in known}


def test_while_somebody_was_refused_whose_lease_may_run_the_list_is_not_whole(stream):
    for number in range(INCARNATIONS_PER_INSTANCE_MAX):
        stream.lease(0.0, incarnation=number.to_bytes(16, "big"))
    assert stream.records.whole(0.0)
    stream.lease(5.0)
    assert not stream.records.knows("gw", INCARNATION)
    assert not stream.records.whole(5.0 + GONE_S - 0.01)
    assert stream.records.whole(5.0 + GONE_S)


def test_incarnations_that_ended_make_room(stream):
    for number in range(3 * INCARNATIONS_PER_INSTANCE_MAX):
        stream.lease(0.0, incarnation=number.to_bytes(16, "big"))
        stream.lease(0.0, incarnation=number.to_bytes(16, "big"), ended=True)
    stream.lease(1.0)
    assert [one.incarnation for one in stream.records.registered(1.0)] == [INCARNATION]
    assert stream.records.whole(1.0)


def test_the_incarnations_of_a_region_are_bounded(stream):
    for number in range(INCARNATIONS_MAX + 10):
        stream.lease(0.0, instance=f"gw-{number}")
    assert len(stream.records.registered(0.0)) == INCARNATIONS_MAX
    assert not stream.records.whole(0.0)
    assert stream.records.knows("gw-0", INCARNATION)
