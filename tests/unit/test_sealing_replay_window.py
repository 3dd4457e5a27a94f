"""Counters of a session: each is accepted once, and a high one ends what is far below."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kcm_sealing.replay_window import SIZE, ReplayWindow

TOP = (1 << 64) - 1


@given(st.lists(st.integers(1, 3 * SIZE), max_size=200))
def test_it_accepts_what_a_set_accepts_that_forgets_what_is_low(counters: list[int]) -> None:
    window, seen, top = ReplayWindow(), set(), 0
    for counter in counters:
        expected = counter not in seen and counter > top - SIZE
        assert window.fresh(counter) is expected
        assert window.take(counter) is expected
        assert not window.fresh(counter)
        if expected:
            seen.add(counter)
            top = max(top, counter)


def test_any_order_within_the_window_is_accepted_once() -> None:
    window, counters = ReplayWindow(), list(range(1, SIZE + 1))
    random.Random(7).shuffle(counters)
    assert all(window.take(counter) for counter in counters)
    assert not any(window.take(counter) for counter in counters)


def test_counters_begin_with_one() -> None:
    window = ReplayWindow()
    assert not window.take(0)
    assert window.take(1)


@pytest.mark.parametrize("step", [1, SIZE - 1, SIZE, SIZE + 1, TOP - 1])
def test_after_a_step_the_lowest_counter_of_the_window_is_the_limit(step: int) -> None:
    window = ReplayWindow()
    assert window.take(1)
    assert window.take(1 + step)
    assert not window.fresh(1)
    assert window.fresh(2 + step - SIZE) is (2 + step - SIZE > 1)
    assert not window.fresh(1 + step - SIZE)
    assert not window.take(1 + step)
