"""What bench-kill computes of what it measured. Nothing here asserts a time of this machine."""

from __future__ import annotations

import pytest
from kcm_killswitch.model.timing import Timing

from benchmarks.kill.broadcast import Taken, figures
from benchmarks.kill.sample import Figure, beside, of_rows, spread
from benchmarks.kill.stream import Size, writes
from benchmarks.measure import Case, in_turns, run


def by_name(found: list[Figure]) -> dict[str, float]:
    return {figure.name: figure.value for figure in found}


def test_a_spread_is_in_milliseconds() -> None:
    times = [number / 1000 for number in range(1, 102)]
    assert by_name(spread("p", "n", times)) == pytest.approx(
        {"n, p50": 51, "n, p99": 100, "n, maximum": 101}
    )


def test_percentiles_are_compared_over_all_rounds_and_times_pair_by_pair() -> None:
    bare, ours = [0.001, 0.002, 0.004], [0.004, 0.004, 0.004]
    over, pairs = beside("p", "n", ours, bare, 3.0)
    assert over.value == pytest.approx(0.004 / 0.00396)
    assert over.met
    assert pairs.value == pytest.approx(2.0)
    assert pairs.met is None


def test_rounds_that_lack_a_turn_are_not_compared() -> None:
    with pytest.raises(ValueError, match="shorter"):
        beside("p", "n", [1.0, 1.0], [1.0], 3.0)


def test_a_target_is_an_upper_bound_unless_it_says_otherwise() -> None:
    assert Figure("p", "n", 3.0, "times", 3.0).met
    assert Figure("p", "n", 3.1, "times", 3.0).met is False
    assert Figure("p", "n", 0.9, "times", 0.97, at_least=True).met is False
    assert Figure("p", "n", 1.0, "times").met is None
    assert Figure("p", "n", 1.0, "times").as_json()["met"] is None


def test_everybody_begins_a_round_in_turn() -> None:
    assert [in_turns(number, "abc") for number in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


async def test_rows_become_a_time_for_the_baseline_and_ratios_for_the_others() -> None:
    order = []

    def turn(name: str, took: float):
        async def work() -> list[float]:
            order.append(name)
            return [took]

        return work

    case = Case(
        "c", "kill", {"one": turn("one", 2e-6), "many": turn("many", 4e-6)}, {"many": 0.8}, "one"
    )
    time, ratio = of_rows(await run(case, 2, rotate=True))
    assert order == ["one", "many", "many", "one"] * 2
    assert (time.value, time.unit, time.target) == (pytest.approx(2.0), "µs", None)
    assert (ratio.value, ratio.target, ratio.met) == (0.5, 0.8, False)


def test_the_report_of_kills_has_both_targets() -> None:
    taken = Taken(
        bare=[0.002, 0.002],
        purged=[0.004, 0.008],
        dark=[0.0, 0.010],
        inside=[0.0001, 0.0002],
        last=["gateway", "core"],
    )
    found = {figure.name: figure for figure in figures(taken)}
    purged = found["hold to the last receipt, p99 over the broadcast's p99"]
    dark = found["hold to the last accepted answer, p99 over the broadcast's p99"]
    assert (purged.target, purged.met) == (3.0, False)
    assert (dark.target, dark.met) == (5.0, True)
    assert found["kills of which a Gateway's receipt was the last"].value == 50


def test_writes_by_arithmetic_follow_the_durations() -> None:
    size = Size(cores=40, gateways=60)
    timing = Timing(renew_every_s=2.0, pull_every_s=2.0, probe_interval_s=10.0, probe_jitter=0.2)
    leases, rounds = 50.0, 2 / 1.75
    assert writes(size, 0, timing) == pytest.approx(leases + 3 * rounds)
    assert writes(size, 900, timing) == pytest.approx(leases + 3 * rounds + 100)
