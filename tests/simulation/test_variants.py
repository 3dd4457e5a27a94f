"""Every system that is broken on purpose is noticed by a few seeds that aim at what is wrong.

With several workers each variant may run on another one (`tests/scheduling.py`).
"""

import pytest

from tests.simulation.noticing import in_focus
from tests.simulation.variants import VARIANTS

SEEDS = 40
"""Seeds that are tried at most; most variants are noticed by one of the first five."""

FIRST = {
    "accept-late": 3,
    "believes-any-peer-lease": 2,
    "blind-put": 2,
    "dropped-when-unkept": 2,
    "gap-after-rollback": 2,
    "grace-at-start": 5,
    "in-flight-attestation-lifts": 2,
    "lease-from-the-acknowledgement": 2,
    "lease-from-the-join": 4,
    "lower-roster-counts": 4,
    "one-of-a-fork": 2,
    "paged-is-forgotten": 3,
    "purge-after-an-await": 9,
    "renewed-by-a-direct-read": 3,
    "result-of-any-period": 4,
    "says-kept": 4,
    "unstamped-attestation": 2,
}
"""Seeds that noticed a variant when this was written, and are tried first: that saves time only."""

REQUIRED = {
    "accept-late", "active-instead-of-generation", "cause-ignored", "clock-stands-in-suspend",
    "complete-without-durability", "epoch-merge", "first-come", "gap-after-rollback",
    "grace-after-a-lapse", "head-only-catch-up",
    "in-flight-attestation-lifts", "lease-at-start", "lease-from-the-acknowledgement",
    "lease-from-the-join", "lift-all", "no-relay", "purge-after-an-await", "receipt-by-name",
    "renewed-by-a-direct-read", "renewed-by-what-is-heard", "replay-only-at-reconnect",
    "roster-from-memory", "stale-overwrite", "tombstone-dropped", "unstamped-attestation",
}  # fmt: skip
"""Rules that were tried, or enumerated, before the ones in force: none may come back unnoticed."""


def test_every_rule_that_was_given_up_is_tried():
    assert VARIANTS.keys() >= REQUIRED
    assert VARIANTS.keys() >= FIRST.keys()
    assert all(variant.rule.strip() for variant in VARIANTS.values())


@pytest.mark.timeout(300)
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_what_is_broken_is_noticed(variant: str) -> None:
    found = in_focus(variant, SEEDS, FIRST.get(variant, 0))
    assert found.seed is not None, VARIANTS[variant].rule
    assert found.unbroken == ""
