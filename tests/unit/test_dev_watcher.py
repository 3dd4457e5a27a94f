"""When what died is started again: soon at first, then ever more slowly."""

from kcm_devsystem.watcher import DELAY_FIRST_S, DELAY_MAX_S, STABLE_S, Ends, ended


def test_the_first_end_is_followed_by_a_start_soon():
    assert ended(Ends(), 100.0) == Ends(1, float("-inf"), 100.0 + DELAY_FIRST_S)


def test_who_ends_again_and_again_is_started_ever_more_slowly_and_never_given_up():
    now, known, delays = 0.0, Ends(), []
    for _ in range(12):
        known = ended(known, now)
        delays.append(known.due - now)
        now = known.due
        known = Ends(known.count, started=now)
    assert delays == sorted(delays)
    assert delays[:3] == [DELAY_FIRST_S, DELAY_FIRST_S * 2, DELAY_FIRST_S * 4]
    assert delays[-1] == DELAY_MAX_S


def test_who_ran_for_long_is_started_soon_again():
    known = Ends(count=9, started=100.0)
    assert ended(known, 100.0 + STABLE_S).due == 100.0 + STABLE_S + DELAY_FIRST_S
    assert ended(known, 100.0 + STABLE_S - 1).count == 10
