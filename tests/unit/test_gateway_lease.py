"""When keys are young, when they are too old to begin with, and what a lease is of no use for."""

from hypothesis import given
from hypothesis import strategies as st
from kcm_gateway.keys import lease as lease_module
from kcm_gateway.keys.lease import RESERVE_MAX_S, SHORTEST_S, Lease
from kcm_schemas.codes import RETRYABLE


def test_of_ten_seconds_five_are_young_and_two_are_reserve():
    lease = Lease(1, 100.0, 110.0)
    assert (lease.young_until, lease.begin_until) == (105.0, 108.0)
    assert not lease.too_short(107.9)
    assert lease.too_short(108.0)


def test_a_lease_without_an_end_never_gets_old():
    lease = Lease(1, 100.0, float("inf"))
    assert lease.young_until == lease.begin_until == float("inf")
    assert not lease.too_short(1e9)


def test_a_lease_that_is_about_to_end_when_it_is_given_is_of_no_use():
    assert Lease(1, 100.0, 100.0).too_short(100.0)
    assert Lease(1, 100.0, 100.0 + SHORTEST_S / 2).too_short(100.0)
    assert not Lease(1, 100.0, 100.0 + SHORTEST_S * 1.01).too_short(100.0)
    error = lease_module.too_short()
    assert error.code in RETRYABLE
    assert "lease" in error.detail


@given(sent=st.floats(0, 1e6), length=st.floats(0, 3600))
def test_the_reserve_is_never_more_than_half_and_begins_behind_the_young_half(sent, length):
    lease = Lease(1, sent, sent + length)
    assert sent <= lease.young_until <= lease.begin_until <= lease.until
    assert lease.until - lease.begin_until <= min(length / 2, RESERVE_MAX_S) + 1e-6
