"""When a hold that a root key caused may be lifted: after successes over the whole waiting time."""

import pytest
from kcm_killswitch.model.flap_damping import FlapDamping, damped


def settle(*successes, held_at=10, settle_s=60.0):
    """Successes as ``(position, moment, now)``."""
    damping = FlapDamping(settle_s)
    for position, moment, now in successes:
        damping.success("link", position, held_at, moment, now)
    return damping


def test_a_hold_settles_after_successes_over_the_whole_time():
    assert not settle((11, 100.0, 100.0)).ripe("link")
    assert not settle((11, 100.0, 100.0), (20, 159.9, 160.0)).ripe("link")
    assert settle((11, 100.0, 100.0), (20, 160.0, 161.0)).ripe("link")


def test_a_success_in_flight_when_the_key_was_disabled_does_not_count():
    assert not settle((9, 100.0, 100.0), (20, 160.0, 161.0)).ripe("link")
    assert settle((10, 100.0, 100.0), (20, 160.0, 161.0)).ripe("link")


def test_a_hold_that_is_not_durable_does_not_settle():
    assert not settle((11, 100.0, 100.0), (20, 260.0, 261.0), held_at=0).ripe("link")


def test_the_first_success_counts_from_when_it_was_heard_and_the_last_from_when_it_began():
    assert not settle((11, 40.0, 100.0), (20, 159.0, 400.0)).ripe("link")


def test_a_refusal_begins_anew():
    damping = settle((11, 100.0, 100.0), (15, 150.0, 150.0))
    damping.refused("link")
    damping.success("link", 20, 10, 161.0, 161.0)
    assert not damping.ripe("link")
    damping.success("link", 30, 10, 221.0, 221.0)
    assert damping.ripe("link")


def test_a_newer_hold_begins_anew():
    damping = settle((11, 100.0, 100.0), (15, 150.0, 150.0))
    damping.success("link", 20, 18, 161.0, 161.0)
    assert not damping.ripe("link")
    damping.success("link", 21, 18, 220.9, 221.0)
    assert not damping.ripe("link")
    damping.success("link", 22, 18, 221.0, 222.0)
    assert damping.ripe("link")


def test_a_key_that_flaps_never_settles():
    damping = FlapDamping(60.0)
    for round_ in range(100):
        for step in range(5):
            now = round_ * 60.0 + step * 10
            damping.success("link", 100 + round_, 10, now, now)
            assert not damping.ripe("link")
        damping.refused("link")


MINUTE_MS = 60_000
DAY_MS = 24 * 60 * MINUTE_MS


@pytest.mark.parametrize(
    ("refused_ms", "expected_s"),
    [
        ([], 60),
        ([7], 60),
        ([0, MINUTE_MS], 120),
        ([0, MINUTE_MS, 4 * MINUTE_MS], 240),
        ([0, 10, MINUTE_MS - 1], 60),  # three Cores, one refusal
        ([0, 10, MINUTE_MS, MINUTE_MS + 10], 120),
        ([0, DAY_MS], 120),
        ([0, DAY_MS + 1], 60),
        ([0, 2 * MINUTE_MS, 5 * DAY_MS, 5 * DAY_MS + 5 * MINUTE_MS], 120),
        ([n * 90 * MINUTE_MS for n in range(7)], 3600),
        ([n * 90 * MINUTE_MS for n in range(50)], 3600),
    ],
)
def test_a_key_that_refuses_again_within_a_day_has_to_answer_for_longer(refused_ms, expected_s):
    assert damped(60.0, refused_ms) == expected_s
    assert damped(60.0, set(refused_ms)) == expected_s


def test_a_key_that_flaps_all_day_causes_few_holds():
    refused, now = [], 0
    while now < DAY_MS:
        refused.append(now)
        now += int(damped(60.0, refused) * 1000) + 10_000
    assert len(refused) <= 50


def test_a_hold_of_a_key_that_flapped_is_ripe_later():
    damping = settle((11, 100.0, 100.0), (20, 219.9, 219.9))
    assert not damping.ripe("link", 120.0)
    damping.success("link", 21, 10, 220.0, 220.0)
    assert damping.ripe("link", 120.0)


def test_links_settle_each_for_itself():
    damping = settle((11, 100.0, 100.0), (20, 160.0, 161.0))
    damping.refused("other")
    assert damping.ripe("link")
    assert not damping.ripe("other")


def test_an_older_success_that_arrives_late_does_not_take_back_what_was_counted():
    damping = settle((11, 100.0, 100.0), (20, 160.0, 161.0), (15, 130.0, 170.0))
    assert damping.ripe("link")
