"""When a root key is probed, and what its answer means."""

import itertools
import random

import pytest
from kcm_killswitch.model.key_leases import Target
from kcm_killswitch.model.probe_scheduler import ProbeScheduler, Verdict, judge
from kcm_killswitch.model.timing import Timing
from kcm_schemas.l1 import L1State

A, B = Target("a", 1, "1"), Target("b", 1, "1")

TABLE = {
    (L1State.ENABLED, True): Verdict.KEY_USE,
    (L1State.ENABLED, False): Verdict.KEY_USE,
    (L1State.DISABLED, True): Verdict.HOLD,
    (L1State.DISABLED, False): Verdict.HOLD,
    (L1State.PENDING_DELETION, True): Verdict.HOLD,
    (L1State.PENDING_DELETION, False): Verdict.HOLD,
    (L1State.DELETED, True): Verdict.HOLD,
    (L1State.DELETED, False): Verdict.HOLD,
    (L1State.FORBIDDEN, True): Verdict.HOLD,
    (L1State.FORBIDDEN, False): Verdict.UNLOAD_HERE,
    (L1State.UNREACHABLE, True): Verdict.NOTHING,
    (L1State.UNREACHABLE, False): Verdict.NOTHING,
    (L1State.INVALID, True): Verdict.INCIDENT,
    (L1State.INVALID, False): Verdict.INCIDENT,
}


def monitor(chance=lambda: 0.5, **timing):
    return ProbeScheduler(Timing(**timing), chance)


WINDOW_S = Timing().probe_window_s("byok")
ALL = 1000
"""Room for everything."""


def watching(*targets, chance=lambda: 0.5):
    made = monitor(chance)
    for target in targets:
        made.watch(target, 0.0, WINDOW_S)
    return made


def named(number):
    return Target(f"t{number:05}", 1, "1")


@pytest.mark.parametrize("state", L1State)
@pytest.mark.parametrize("used", [True, False])
def test_what_every_answer_means(state, used):
    assert judge(state, used_before=used) is TABLE[state, used]


def test_a_state_has_a_meaning_or_this_fails():
    assert {state for state, _ in TABLE} == set(L1State)


def test_used_before_is_of_the_same_link_and_this_incarnation():
    plan = watching(A, B)
    assert plan.ended(A, L1State.FORBIDDEN, 0.0, 0.0) is Verdict.UNLOAD_HERE
    assert plan.ended(A, L1State.ENABLED, 1.0, 1.0) is Verdict.KEY_USE
    assert plan.ended(B, L1State.FORBIDDEN, 2.0, 2.0) is Verdict.UNLOAD_HERE
    assert plan.ended(A, L1State.FORBIDDEN, 3.0, 3.0) is Verdict.HOLD
    assert plan.ended(Target("a", 2, "9"), L1State.FORBIDDEN, 3.0, 3.0) is Verdict.HOLD


def test_unreachable_and_invalid_do_not_count_as_having_used_the_key():
    plan = watching(A)
    for state in (L1State.UNREACHABLE, L1State.INVALID, L1State.FORBIDDEN):
        plan.ended(A, state, 0.0, 0.0)
    assert plan.ended(A, L1State.FORBIDDEN, 1.0, 1.0) is Verdict.UNLOAD_HERE


def test_first_probes_are_spread_over_an_interval():
    chances = iter([0.0, 0.25, 0.999])
    plan = watching(A, B, Target("c", 1, "1"), chance=lambda: next(chances))
    assert len(plan.take(0.0, ALL)) == 1
    assert len(plan.take(2.5, ALL)) == 1
    assert len(plan.take(9.99, ALL)) == 1


@pytest.mark.parametrize(("chance", "interval"), [(0.0, 10.0), (0.5, 9.0), (0.999, 8.002)])
def test_an_interval_comes_early_by_its_jitter_and_never_late(chance, interval):
    plan = watching(A, chance=lambda: chance)
    plan.ended(A, L1State.ENABLED, 100.0, 101.0)
    assert plan.next_due() == pytest.approx(100.0 + interval)


def test_a_key_that_did_not_answer_is_asked_again_soon():
    plan = watching(A, chance=lambda: 0.0)
    plan.ended(A, L1State.UNREACHABLE, 100.0, 105.0)
    assert plan.next_due() == pytest.approx(107.5)
    plan.ended(A, L1State.INVALID, 107.5, 108.0)
    assert plan.next_due() == pytest.approx(110.5)
    plan.ended(A, L1State.DISABLED, 110.5, 111.0)
    assert plan.next_due() == pytest.approx(120.5)


def test_another_cores_attestation_postpones_and_an_older_one_does_not_hasten():
    plan = watching(A, chance=lambda: 0.0)
    plan.ended(A, L1State.ENABLED, 100.0, 100.0)
    plan.attested(A, 104.0)
    assert plan.next_due() == pytest.approx(114.0)
    plan.attested(A, 90.0)
    assert plan.next_due() == pytest.approx(114.0)
    plan.attested(B, 500.0)
    assert plan.next_due() == pytest.approx(114.0)


def test_a_probe_under_way_is_not_begun_again():
    plan = watching(A)
    assert plan.take(1e3, ALL) == [A]
    assert plan.take(1e9, ALL) == []
    assert plan.next_due() is None
    plan.watch(A, 1.0, WINDOW_S)
    plan.attested(A, 1e3)
    plan.soon("a", 1e3)
    assert plan.take(1e9, ALL) == []
    plan.ended(A, L1State.ENABLED, 1.0, 2.0)
    assert plan.take(1e9, ALL) == [A]


def test_what_is_not_watched_any_more_is_not_asked_and_its_probe_under_way_may_end():
    plan = watching(A, B)
    plan.drop(B)
    assert plan.take(1e3, ALL) == [A]
    plan.drop(A)
    assert plan.targets == []
    assert plan.ended(A, L1State.DISABLED, 0.0, 2.0) is Verdict.HOLD
    assert plan.next_due() is None
    assert plan.take(1e9, ALL) == []


def test_what_is_watched_again_while_its_probe_is_under_way_is_probed_on():
    plan = watching(A)
    assert plan.take(1e3, ALL) == [A]
    plan.drop(A)
    plan.watch(A, 1e3, None)
    plan.ended(A, L1State.ENABLED, 1e3, 1e3)
    assert plan.take(1e3 + 9.0, ALL) == [A]
    assert plan.open_keys == 0


def test_an_event_makes_every_key_of_a_link_due():
    plan = watching(A, B, chance=lambda: 0.9)
    plan.soon("a", 0.5)
    assert plan.take(0.5, ALL) == [A]


@pytest.mark.parametrize("hanging", [60, 400])
def test_keys_that_hang_do_not_keep_the_others_from_being_asked(hanging):
    """One that did not answer has to do with what the others leave over."""
    slots, hangs_s = 32, 5.0
    plan = watching(A, *(named(number) for number in range(hanging)))
    now, under_way, asked = 0.0, [], []
    while now < 200.0:
        for target, began in [pair for pair in under_way if now - pair[1] >= hangs_s]:
            plan.ended(target, L1State.UNREACHABLE, began, now)
            under_way.remove((target, began))
        for target in plan.take(now, slots - len(under_way)):
            if target == A:
                asked.append(now)
                plan.ended(A, L1State.ENABLED, now, now)
            else:
                under_way.append((target, now))
        now += 0.25
    late = [after - before for before, after in itertools.pairwise(asked) if before > 100.0]
    assert late
    assert max(late) <= Timing().probe_interval_s


# The bound


def test_probes_of_any_second_are_bounded_whatever_is_open():
    per_s = 40.0
    plan = monitor(lambda: 0.0)
    for number in range(2000):
        plan.watch(named(number), 0.0, WINDOW_S)
    began, now = [], 0.0
    while now < 30.0:
        for target in plan.take(now, ALL):
            began.append(now)
            plan.ended(target, L1State.ENABLED, now, now)
        now += 0.25
    for start in range(29):
        assert sum(start <= at < start + 1 for at in began) <= per_s * 1.5
    assert len(began) <= 30 * per_s + per_s
    assert plan.crowded


@pytest.mark.parametrize("model", ["byok", "hyok"])
def test_as_many_keys_as_are_not_crowded_are_used_again_within_their_window(model):
    """Taking turns under the bound, each comes round before its lease has to be saved."""
    window_s = Timing().probe_window_s(model)
    plan = monitor(random.Random(1).random)
    count = 0
    while not plan.crowded:
        plan.watch(named(count), 0.0, window_s)
        count += 1
    plan.drop(named(count - 1))
    assert not plan.crowded
    last: dict[Target, float] = {}
    waited, now = 0.0, 0.0
    while now < 100.0:
        for target in plan.take(now, ALL):
            waited = max(waited, now - last.get(target, 0.0))
            last[target] = now
            plan.ended(target, L1State.ENABLED, now, now)
        now += 0.25
    assert len(last) == count - 1
    assert waited <= window_s + 0.5


def test_one_key_on_its_owners_premises_counts_for_all_while_it_is_open():
    plan = monitor()
    byok, hyok = (Timing().probe_window_s(model) for model in ("byok", "hyok"))
    for number in range(int(27 * byok)):
        plan.watch(named(number), 0.0, byok)
    assert not plan.crowded
    plan.watch(A, 0.0, hyok)
    assert plan.crowded
    plan.drop(A)
    assert not plan.crowded


@pytest.mark.parametrize("model", ["byok", "hyok"])
def test_as_many_may_be_open_as_it_says(model):
    timing = Timing()
    plan = monitor(random.Random(1).random)
    assert plan.most == int(27 * timing.probe_window_s("byok"))  # of those that may come next
    window_s = timing.probe_window_s(model)
    plan.watch(named(0), 0.0, window_s)
    most = plan.most
    for number in range(1, most):
        plan.watch(named(number), 0.0, window_s)
    assert (plan.open_keys, plan.crowded) == (most, False)
    plan.watch(named(most), 0.0, window_s)
    assert plan.crowded


def test_held_keys_close_nobody_and_take_no_turn_of_an_open_one():
    plan = watching(A)
    for number in range(5000):
        plan.watch(named(number), 0.0, None)
    assert not plan.crowded
    asked, held, now = [], 0, 0.0
    while now < 60.0:
        for target in plan.take(now, ALL):
            plan.ended(target, L1State.ENABLED, now, now)
            if target == A:
                asked.append(now)
            else:
                held += 1
        now += 0.25
    assert max(after - before for before, after in itertools.pairwise(asked)) <= 10.0
    assert 0 < held <= 60 * 10 + 10


def test_a_look_at_many_keys_looks_at_those_that_are_due():
    """Counted: how often plans are compared, and not how long that takes."""
    compared = 0

    class Counted(float):
        def __lt__(self, other):
            nonlocal compared
            compared += 1
            return float(self) < float(other)

    plan = monitor(lambda: 0.999)
    for number in range(10_000):
        plan.watch(named(number), Counted(1e6), WINDOW_S)
    compared = 0
    for step in range(100):
        assert plan.take(step / 4, ALL) == []
    assert compared <= 200
