"""An instance that keeps diverging from a Core replays the stream, once for each difference."""

import pytest
from kcm_killswitch.model.divergence import PATIENCE_S, Divergence

OURS, THEIRS, OTHER = b"ours", b"theirs", b"other"


@pytest.fixture
def agreement():
    return Divergence()


def test_a_difference_that_passes_is_none(agreement):
    assert not agreement.heard("core-1", THEIRS, OURS, 0)
    assert not agreement.heard("core-1", THEIRS, THEIRS, PATIENCE_S)
    assert not agreement.heard("core-1", THEIRS, OURS, 2 * PATIENCE_S)


def test_a_difference_that_stays_is_read_again_once(agreement):
    assert not agreement.heard("core-1", THEIRS, OURS, 0)
    assert not agreement.heard("core-1", THEIRS, OURS, PATIENCE_S - 0.1)
    assert agreement.heard("core-1", THEIRS, OURS, PATIENCE_S)
    assert not agreement.heard("core-1", THEIRS, OURS, 10 * PATIENCE_S)


@pytest.mark.parametrize("changed", [(OTHER, OURS), (THEIRS, OTHER)])
def test_whoever_learns_something_new_gets_time_for_it(agreement, changed):
    agreement.heard("core-1", THEIRS, OURS, 0)
    assert not agreement.heard("core-1", *changed, PATIENCE_S)
    assert agreement.heard("core-1", *changed, 2 * PATIENCE_S)


def test_two_cores_that_say_the_same_are_one_reason(agreement):
    for core in ("core-1", "core-2"):
        agreement.heard(core, THEIRS, OURS, 0)
    assert agreement.heard("core-1", THEIRS, OURS, PATIENCE_S)
    assert not agreement.heard("core-2", THEIRS, OURS, PATIENCE_S)


def test_one_core_that_agrees_does_not_speak_for_another(agreement):
    agreement.heard("core-1", THEIRS, OURS, 0)
    assert not agreement.heard("core-2", OURS, OURS, 1)
    assert agreement.heard("core-1", THEIRS, OURS, PATIENCE_S)
