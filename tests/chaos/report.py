"""What a run prints at its end."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from tests.chaos.checker import check
from tests.chaos.faults import Faults
from tests.chaos.history import History, Kill
from tests.chaos.journal import Journal
from tests.chaos.plant import Plant
from tests.chaos.traffic import Stream

JUST_NOW_S = 2.0

KILLS = ("kill-tenant", "kill-link")


def report(
    seed: int,
    seconds: float,
    history: History,
    faults: Faults,
    streams: list[Stream],
    plant: Plant,
    journal: Journal,
) -> dict[str, Any]:
    """One object with everything that was counted, and the judge's verdict."""
    spared = {tenant.name for tenant in history.tenants if tenant.spared}
    took = [
        kill.complete - kill.requested
        for kill in history.kills.values()
        if kill.complete is not None and kill.cause == "operator"
    ]
    return {
        "seed": seed,
        "seconds": seconds,
        "faults": dict(Counter(fault.kind for fault, _, _ in faults.done)),
        "answers_accepted": len(history.accepted),
        "kills": len([kill for kill in history.kills.values() if kill.cause == "operator"]),
        "kills_of_served": sum(_was_served(history, kill) for kill in history.kills.values()),
        "kills_complete": len(took),
        "kills_by_keys": len([kill for kill in history.kills.values() if kill.cause == "l1"]),
        "slowest_kill_s": round(max(took, default=0.0), 3),
        "faults_during_kills": _coincided(history, faults),
        "records_written": sum(len(stream.sealed) for stream in streams),
        "records_lost": len(history.lost),
        "refused": dict(Counter(r.code for r in history.refused if r.tenant not in spared)),
        "other_tenants_errors": dict(
            Counter(r.code for r in history.refused if r.tenant in spared)
        ),
        "disks_harmed": [f"{damage.server}: {damage.what}" for damage in history.damages],
        "repairs": history.repairs,
        "events_not_journalled": sum(hole.last - hole.first + 1 for hole in journal.holes),
        "audit_incidents": dict(Counter(kind for _, kind in journal.told)),
        "ended_by_themselves": dict(Counter(plant.ended_by_themselves)),
        "violations": [asdict(violation) for violation in check(history)],
    }


def _was_served(history: History, kill: Kill) -> bool:
    """Whether an operator killed somebody who was being served: else it shows little."""
    reached = {tenant.name for tenant in history.reached(kill)}
    return kill.cause == "operator" and any(
        answer.tenant in reached and 0 <= kill.requested - answer.at < JUST_NOW_S
        for answer in history.accepted
    )


def _coincided(history: History, faults: Faults) -> dict[str, int]:
    """By kind, the faults that were there between the request of a kill and its completion."""
    spans = [
        (kill.requested, kill.complete if kill.complete is not None else kill.held_until or 0.0)
        for kill in history.kills.values()
        if kill.cause == "operator"
    ]
    return dict(
        Counter(
            fault.kind
            for fault, began, ended in faults.done
            if fault.kind not in KILLS
            and any(began < done and asked < ended for asked, done in spans)
        )
    )


def good(result: dict[str, Any]) -> bool:
    """Whether nothing was broken, lost or left behind, and something was served."""
    return not (
        result["violations"]
        or result["records_lost"]
        or result["left_running"]
        or not result["answers_accepted"]
    )
