"""Every system that is broken on purpose is noticed by a few seeds that aim at what is wrong."""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor

import pytest

from tests.simulation.noticing import Noticed, in_focus
from tests.simulation.variants import VARIANTS

SEEDS = 40
"""Seeds that are tried at most; most variants are noticed by one of the first five."""

REQUIRED = {
    "accept-late", "active-instead-of-generation", "cause-ignored", "clock-stands-in-suspend",
    "complete-without-durability", "epoch-merge", "first-come", "gap-after-rollback",
    "grace-after-a-lapse", "head-only-catch-up",
    "in-flight-proof-lifts", "lease-at-boot", "lease-from-the-acknowledgement",
    "lease-from-the-join", "lift-all", "no-relay", "purge-after-an-await", "receipt-by-name",
    "renewed-by-a-direct-read", "renewed-by-what-is-heard", "replay-only-at-reconnect",
    "roster-from-memory", "stale-overwrite", "tombstone-dropped", "unstamped-proof",
}  # fmt: skip
"""Rules that were tried, or enumerated, before the ones in force: none may come back unnoticed."""


def test_every_rule_that_was_given_up_is_tried():
    assert VARIANTS.keys() >= REQUIRED
    assert all(variant.rule.strip() for variant in VARIANTS.values())


@pytest.fixture(scope="module")
def noticed(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Noticed]]]:
    """The search for every variant that is asked for, on all processors that are free."""
    items = [one for one in request.session.items if isinstance(one, pytest.Function)]
    mine = [one for one in items if "noticed" in one.fixturenames]
    asked = [one.callspec.params["variant"] for one in mine]
    context = multiprocessing.get_context("spawn")
    others = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) - 1
    free = max(1, (os.cpu_count() or 1) - others)
    with ProcessPoolExecutor(free, mp_context=context) as pool:
        yield {variant: pool.submit(in_focus, variant, SEEDS) for variant in asked}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_what_is_broken_is_noticed(variant: str, noticed: dict[str, Future[Noticed]]) -> None:
    found = noticed[variant].result()
    assert found.seed is not None, VARIANTS[variant].rule
    assert found.unbroken == ""
