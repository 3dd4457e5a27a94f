"""Whether the simulation can fail: every broken variant, until a seed notices it.

A seed notices a variant when a run of it breaks an invariant, or does not end in time, and the
unbroken system does neither on the very same seed. An error of the variant's own code does not
count.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from tests.simulation.run import run
from tests.simulation.variants import VARIANTS

COUNTED = ("Violation", "Stuck", "Runaway")
"""How a failure of the run itself begins."""

ENDS_S: Final = 250.0
"""Virtual seconds within which a run has to end, of the variant and of the unbroken system.

Less than the bound of other runs, because variants that make no progress use all of it.
"""


@dataclass(frozen=True, slots=True)
class Noticed:
    """A variant, the first seed that noticed it (none: nobody did), and how."""

    variant: str
    seed: int | None
    tried: int
    failure: str = ""
    unbroken: str = ""
    """What the unbroken system did wrong on that seed: nothing."""


def notice(variant: str, seeds: Iterable[int], *, focus: str = "") -> Noticed:
    """Try seeds in order; ``focus`` is what each has to aim at, and otherwise is drawn."""
    tried = 0
    for seed in seeds:
        tried += 1
        failure = run(seed, variant, True, focus, ENDS_S).failure
        if failure.startswith(COUNTED):
            unbroken = run(seed, "", True, focus, ENDS_S).failure
            return Noticed(variant, seed, tried, failure, unbroken)
    return Noticed(variant, None, tried)


def in_focus(variant: str, count: int, first: int) -> Noticed:
    """Try so many seeds that aim at what the variant does wrong, and ``first`` before them."""
    seeds = dict.fromkeys((first, *range(count)))
    return notice(variant, seeds, focus=VARIANTS[variant].focus)


def by_default(first: int, count: int, variant: str) -> Noticed:
    """Try default seeds, as many as a default run has."""
    return notice(variant, range(first, first + count))


def searches(first: int, count: int) -> partial[Noticed]:
    """The search of a default run, to be called with a variant."""
    return partial(by_default, first, count)
