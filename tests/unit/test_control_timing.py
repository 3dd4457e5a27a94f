"""Durations: what is refused, and the bounds that follow."""

from dataclasses import fields, replace

import pytest
from kcm_killswitch.model.incarnations import GONE_S
from kcm_killswitch.model.timing import ANSWER_MAX_S, Timing

DURATIONS = [field.name for field in fields(Timing)]


def test_the_defaults_give_the_bounds_that_are_claimed():
    timing = Timing()
    exact = (10 + 5) * 1.001 / 0.999
    assert timing.incarnation_bound_s(0) == pytest.approx(exact)
    assert timing.peer_lease_bound_s("hyok") == pytest.approx(exact)
    assert timing.peer_lease_bound_s("byok") == pytest.approx((60 + 5) * 1.001 / 0.999)


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("value", [0, -1, 3601, float("nan"), float("inf")])
def test_nothing_is_zero_negative_endless_or_no_number(name, value):
    with pytest.raises(ValueError, match=r"."):
        Timing(**{name: value})


@pytest.mark.parametrize(
    "changes",
    [
        {"renew_every_s": 5.1},
        {"control_lease_s": 5.9},
        {"pull_every_s": 5.1},
        {"hyok_grace_s": 4.9},
        {"partition_grace_s": 4.9},
        {"probe_interval_s": 15.1},
        {"l1_lease_s": 19.9},
        {"clock_error": 0.11},
        {"probe_jitter": 1.0},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_cannot_be_renewed_twice_before_it_ends_is_refused(changes):
    with pytest.raises(ValueError, match=r"."):
        Timing(**changes)


def test_a_control_lease_that_outlives_its_lease_entry_is_refused():
    """Without a lease entry an instance would serve on, and a kill be complete without it."""
    longest = replace(Timing(), control_lease_s=54.0)
    assert longest.incarnation_bound_s(0) < GONE_S
    with pytest.raises(ValueError, match=r"."):
        replace(Timing(), control_lease_s=GONE_S - ANSWER_MAX_S)
    with pytest.raises(ValueError, match=r"."):
        replace(Timing(), control_lease_s=3600.0)


def test_the_bound_covers_the_slowest_incarnation_and_the_fastest_watch():
    timing = Timing(clock_error=0.1)
    longest = (timing.control_lease_s + ANSWER_MAX_S) / (1 - timing.clock_error)  # true time
    assert timing.incarnation_bound_s(0) / (1 + timing.clock_error) == pytest.approx(longest)


def test_who_is_served_on_premises_has_the_shorter_grace():
    timing = Timing()
    assert timing.grace_s("hyok") < timing.grace_s("byok")
