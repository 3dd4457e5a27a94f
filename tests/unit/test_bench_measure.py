"""Turns, ratios and tables of the benchmarks. Nothing here asserts a time."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from benchmarks import measure, report
from benchmarks.measure import Case


def scripted(name, samples, log):
    """A contestant that took what is written, and says when it was asked."""
    takes = iter(samples)

    async def turn():
        log.append(name)
        return next(takes)

    return turn


async def compared(ours, theirs, **settings):
    log = []
    contestants = {"bare": scripted("bare", theirs, log), "ours": scripted("ours", ours, log)}
    rows = await measure.run(Case("case", "record", contestants, **settings), len(ours) - 2)
    return log, rows


async def test_contestants_alternate() -> None:
    log, _ = await compared([[1.0]] * 5, [[1.0]] * 5)
    assert log == ["bare", "ours"] * 5


async def test_the_first_rounds_do_not_count() -> None:
    _, (bare, ours) = await compared([[9.0], [9.0], [2.0]], [[7.0], [7.0], [1.0]])
    assert (bare.microseconds, ours.microseconds) == (1e6, 2e6)
    assert ours.rounds == ours.samples == 1


async def test_a_ratio_is_of_one_round() -> None:
    """The clock drifts by a factor of a hundred; the ratio does not move."""
    drift = [1.0, 1.0, 1.0, 100.0, 10.0]
    _, (bare, ours) = await compared([[2 * one] for one in drift], [[one] for one in drift])
    assert (ours.ratio_p10, ours.ratio, ours.ratio_p90) == (0.5, 0.5, 0.5)
    assert bare.ratio == 1.0


async def test_percentiles_are_over_all_samples() -> None:
    turns = [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 2.0, 9.0], [1.0, 2.0, 9.0]]
    _, (_, ours) = await compared(turns, [[1.0]] * 4)
    assert ours.samples == 6
    assert ours.p50_us == 2e6
    assert ours.p99_us == pytest.approx(9e6)
    assert ours.ratio == 0.5


@pytest.mark.parametrize(("target", "met"), [(0.4, True), (0.5, True), (0.6, False)])
async def test_a_target_is_a_ratio(target, met) -> None:
    _, (bare, ours) = await compared([[2.0]] * 3, [[1.0]] * 3, targets={"ours": target})
    assert bare.met is None
    assert ours.met is met
    assert ("MISSED" in report.table([bare, ours])) is not met


async def test_another_baseline() -> None:
    _, (bare, ours) = await compared([[2.0]] * 3, [[1.0]] * 3, baseline="ours")
    assert (bare.ratio, ours.ratio) == (2.0, 1.0)


@pytest.mark.parametrize(
    ("percent", "value"), [(0, 1.0), (10, 1.3), (50, 2.5), (90, 3.7), (100, 4.0)]
)
def test_percentile(percent, value) -> None:
    assert measure.percentile([4.0, 1.0, 3.0, 2.0], percent) == pytest.approx(value)


def test_percentile_of_one_and_of_none() -> None:
    assert measure.percentile([5.0], 99) == 5.0
    with pytest.raises(ValueError, match="at least one"):
        measure.percentile([], 50)


async def test_a_turn_has_what_it_left_over() -> None:
    done = []

    async def later():
        await asyncio.sleep(0)
        done.append(True)

    left = []

    async def work():
        left.append(asyncio.get_running_loop().create_task(later()))

    (took,) = await measure.cpu_async(1, work)()
    assert done == [True]
    assert took >= 0


async def test_a_turn_by_the_wall_clock_has_a_sample_for_each_call() -> None:
    calls = []

    async def call():
        calls.append(True)

    samples = await measure.wall(7, 2, call)()
    assert len(samples) == len(calls) == 7


def test_a_turn_of_synchronous_work_does_it_once() -> None:
    calls = []
    (took,) = asyncio.run(measure.cpu(3, lambda: calls.append(True))())
    assert calls == [True]
    assert took >= 0


async def test_the_summary_names_what_was_missed_and_who_was_absent() -> None:
    _, rows = await compared([[2.0]] * 3, [[1.0]] * 3, targets={"ours": 0.6})
    run = report.Run(rows, report.machine(), report.versions(), {}, quick=False, seconds=1.0)
    text = report.summary(run)
    assert "0 of 1 met; missed: case, ours" in text
    assert "not installed: make bench-peers" in text
    assert "Tink 1" in report.summary(replace(run, peers={"Tink": "1"}))
