"""Ways to break the system on purpose: the simulation has to notice each of them.

A variant replaces a part of every instance by a naive one. What no variant is noticed by is not
checked. Beside each stands the focus that brings about its situation; default seeds draw that one,
too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.simulation.variants import (
    apps,
    disks,
    holds,
    kills,
    leases,
    pages,
    puts,
    registry,
    results,
    rosters,
)
from tests.simulation.variants.holds import REVOCATIONS
from tests.simulation.variants.results import RESULT_STORES

if TYPE_CHECKING:
    from tests.simulation.instance import Instance

__all__ = ["RESULT_STORES", "REVOCATIONS", "VARIANTS", "Variant", "broken"]


@dataclass(frozen=True, slots=True)
class Variant:
    """A naive rule, what makes it, and the focus in which it shows."""

    rule: str
    focus: str
    apply: Callable[[Instance], None]


def _by(apply: Callable[[Instance], None], focus: str) -> Variant:
    return Variant(apply.__doc__ or "", focus, apply)


def _nothing(instance: Instance) -> None:
    """It is applied where it belongs: search for its name."""


def _set(name: str, focus: str) -> Variant:
    return Variant(REVOCATIONS[name].__doc__ or "", focus, _nothing)


VARIANTS: Final[dict[str, Variant]] = {
    "endless-registry": _by(registry.endless_registry, "moved-late"),
    "fading-difference": _by(registry.fading_difference, "moved-gone-core"),
    "first-come": _by(registry.first_come, "moved-fork"),
    "grace-after-a-lapse": _by(registry.grace_after_a_lapse, "moved-away"),
    "grace-at-start": _by(registry.grace_at_start, "moved-set-back"),
    "last-come": _by(registry.last_come, "moved-set-back"),
    "moved-unpurged": _by(registry.moved_unpurged, "moved-on"),
    "no-floors": _by(registry.no_floors, "moved-lost"),
    "no-repair": _by(registry.no_repair, "moved-set-back"),
    "one-of-a-fork": _by(registry.one_of_a_fork, "moved-fork"),
    "one-store": _by(registry.one_store, "moved-restarted"),
    "served-without-baseline": _by(registry.served_without_baseline, "moved-forgotten"),
    "reached-ignored": _by(registry.reached_ignored, "moved-late"),
    "accept-late": Variant(
        "A client accepts an answer whenever it comes.", "late-answers", _nothing
    ),
    "accepted-unshown": _by(registry.accepted_unshown, "moved-unshown"),
    "active-instead-of-generation": _set("active-instead-of-generation", "moment"),
    "app-hold-on-the-name": _by(apps.app_hold_on_the_name, "app-rotated"),
    "app-holds-unread": _by(apps.app_holds_unread, "app-killed"),
    "asks-never-end": _by(apps.asks_never_end, "thief"),
    "asks-unchecked": _by(apps.asks_unchecked, "thief"),
    "copies-executed": _by(apps.copies_executed, "thief"),
    "core-app-holds-unread": _by(apps.core_app_holds_unread, "thief-app"),
    "gateway-holds-unread": _by(apps.gateway_holds_unread, "thief-instance"),
    "tags-unchecked": _by(apps.tags_unchecked, "thief"),
    "ticket-opens-again": _by(apps.ticket_opens_again, "thief"),
    "anchor-at-the-last-write": _by(leases.anchor_at_the_last_write, "gaps"),
    "believes-any-peer-lease": _by(rosters.believes_any_peer_lease, "unheard-core"),
    "blind-put": _by(puts.blind_put, "rollback"),
    "cause-ignored": _by(holds.cause_ignored, "held-key"),
    "clock-stands-in-suspend": Variant(
        "Leases are counted on a clock that stops in suspend.", "suspend", _nothing
    ),
    "complete-though-unkept": _by(disks.complete_though_unkept, "full-disk"),
    "complete-without-durability": _by(kills.complete_without_durability, "cut-off"),
    "conflict-is-outage": _by(puts.conflict_is_outage, "overtaken"),
    "conflict-is-success": _by(puts.conflict_is_success, "overtaken"),
    "dropped-when-unkept": _by(disks.dropped_when_unkept, "full-disk"),
    "endless-lease": _by(leases.endless_lease, "slow-side"),
    "endless-attestations": _by(leases.endless_attestations, "silent-key"),
    "epoch-merge": _set("epoch-merge", "two-operators"),
    "first-of-another-era": _by(kills.first_of_another_era, "another-era"),
    "first-zero-exempts": _by(kills.first_zero_exempts, "replayed-first"),
    "gap-after-rollback": _by(leases.gap_after_rollback, "rollback"),
    "grants-read-once": _by(apps.grants_read_once, "app-narrowed"),
    "grants-without-lease": _by(apps.grants_without_lease, "app-late"),
    "head-only-catch-up": Variant(
        "An incarnation reads the stream from its end.", "late-start", _nothing
    ),
    "in-flight-attestation-lifts": _by(holds.in_flight_attestation_lifts, "settling-key"),
    "lease-at-start": _by(leases.lease_at_start, "late-start"),
    "lease-by-the-acknowledgement": _by(leases.lease_by_the_acknowledgement, "slow-side"),
    "lease-from-the-acknowledgement": _by(leases.lease_from_the_acknowledgement, "slow-acks"),
    "lease-from-the-join": Variant(
        "Who joins a request that is under way counts its lease from the joining.",
        "late-join",
        _nothing,
    ),
    "last-result-stays": Variant(
        "A result is stored over whatever was stored meanwhile.", "results-race", _nothing
    ),
    "lift-all": _set("lift-all", "two-operators"),
    "judged-by-arrival": _by(rosters.judged_by_arrival, "new-roster"),
    "lonely": _by(kills.lonely, "new-here"),
    "lower-roster-counts": _by(rosters.lower_roster_counts, "new-roster"),
    "no-peer-leases": _by(leases.no_peer_leases, "cut-off"),
    "no-relay": _by(holds.no_relay, "stale"),
    "no-watch": _by(kills.no_watch, "newcomer"),
    "own-hold-unread": _set("own-hold-unread", "instance-killed"),
    "page-of-any-cause": _set("page-of-any-cause", "pages"),
    "paged-is-forgotten": _set("paged-is-forgotten", "pages"),
    "pages-not-stored": _by(pages.expires_before_stored, "pages"),
    "peer-lease-without-highest-hold": _by(leases.peer_lease_without_highest_hold, "lost-repair"),
    "peer-lease-of-any-roster": _by(rosters.peer_lease_of_any_roster, "unheard-region"),
    "pruned-by-count": _by(kills.pruned_by_count, "invented-incarnations"),
    "purge-after-an-await": _by(holds.purge_after_an_await, "moment"),
    "receipt-by-name": _by(kills.receipt_by_name, "before-durable"),
    "refused-believed": _by(registry.refused_believed, "moved-refused"),
    "renewed-by-a-direct-read": _by(leases.renewed_by_a_direct_read, "minority"),
    "renewed-by-what-is-heard": _by(leases.renewed_by_what_is_heard, "slow-side"),
    "replay-only-at-reconnect": _by(leases.replay_only_at_reconnect, "gaps"),
    "result-is-not-remembered": _by(results.result_is_not_remembered, "results-lost"),
    "result-of-any-period": _by(results.result_of_any_period, "new-roster"),
    "result-of-its-own": Variant(
        "Every Core keeps the results that it concluded, and asks nobody for others.",
        "results-race",
        _nothing,
    ),
    "retired-holds-end": _by(rosters.retired_holds_end, "new-roster"),
    "roster-at-the-start": _by(rosters.roster_at_the_start, "new-roster"),
    "roster-from-memory": _by(kills.roster_from_memory, "new-here"),
    "says-kept": _by(disks.says_kept, "full-disk"),
    "serves-on": _set("serves-on", "stale"),
    "silent-without-watch": _by(kills.silent_without_watch, "unheard-renewals"),
    "stale-overwrite": _set("stale-overwrite", "stale"),
    "told-unstored": _by(results.told_unstored, "results-full"),
    "tombstone-dropped": _set("tombstone-dropped", "stale"),
    "unstamped-attestation": _by(leases.unstamped_attestation, "silent-key"),
}
"""What is broken, by name."""


def broken(name: str, instance: Instance) -> None:
    """Break an instance that was made just now; an empty name breaks nothing."""
    if name:
        VARIANTS[name].apply(instance)
