from __future__ import annotations

from collections.abc import Iterable

from kcm_auditor.journal.format import Incident
from kcm_auditor.liveness import SILENT_S, UNREACHABLE_S, Watch
from kcm_auditor.rate_limit import PER_WINDOW, WINDOW_S, RateLimit
from kcm_schemas.roster import Instance, Role

ROSTER = [
    Instance(instance="gw", role=Role.GATEWAY, region="eu", public_key=bytes(32), grants=[]),
    Instance(instance="core", role=Role.CORE, region="eu", public_key=bytes(32), grants=[]),
    Instance(instance="far", role=Role.CORE, region="us", public_key=bytes(32), grants=[]),
]


def told(incidents: Iterable[Incident]) -> list[tuple[str, str | None]]:
    return [(i.incident.value, i.emitter or i.region) for i in incidents]


def watch(*regions: str) -> Watch:
    watch = Watch(regions or ("eu",), 0.0)
    watch.expect(ROSTER, 0.0)
    for region in regions or ("eu",):
        watch.reachable(region, up=True, now=0.0)
    return watch


def test_silence_is_reported_once_and_so_is_its_end() -> None:
    w = watch()
    w.heard("core", stopped=False, now=SILENT_S)
    assert told(w.due(SILENT_S - 0.1)) == []
    assert told(w.due(SILENT_S)) == [("silent", "gw")]
    assert w.is_silent("gw")
    assert told(w.due(SILENT_S + 1)) == []
    assert told(w.heard("gw", stopped=False, now=SILENT_S + 2)) == [("heard", "gw")]
    assert told(w.heard("gw", stopped=False, now=SILENT_S + 3)) == []
    assert told(w.due(3 * SILENT_S)) == [("silent", "gw"), ("silent", "core")]


def test_an_orderly_stop_is_no_silence() -> None:
    w = watch()
    w.heard("gw", stopped=True, now=1.0)
    w.heard("core", stopped=True, now=1.0)
    assert told(w.due(10 * SILENT_S)) == []
    w.heard("gw", stopped=False, now=10 * SILENT_S)
    assert told(w.due(12 * SILENT_S)) == [("silent", "gw")]


def test_nobody_is_silent_while_nobody_can_be_heard() -> None:
    w = watch()
    w.reachable("eu", up=False, now=10.0)
    w.reachable("eu", up=False, now=11.0)
    assert told(w.due(10.0 + UNREACHABLE_S)) == [("unreachable", "eu")]
    assert told(w.due(10 * SILENT_S)) == []
    back = 10 * SILENT_S
    assert told(w.reachable("eu", up=True, now=back)) == [("reachable", "eu")]
    assert told(w.due(back + SILENT_S - 1)) == []
    assert len(told(w.due(back + SILENT_S))) == 2


def test_a_region_that_was_never_there_is_reported() -> None:
    w = Watch(("eu",), 0.0)
    w.expect(ROSTER, 0.0)
    assert told(w.due(UNREACHABLE_S)) == [("unreachable", "eu")]


def test_a_short_outage_is_not_worth_a_line() -> None:
    w = watch()
    w.reachable("eu", up=False, now=1.0)
    assert told(w.reachable("eu", up=True, now=2.0)) == []


def test_only_followed_regions_and_the_present_roster_are_watched() -> None:
    w = watch("eu", "us")
    w.expect(ROSTER[1:], 1.0)
    assert told(w.due(SILENT_S + 1)) == [("silent", "core"), ("silent", "far")]
    assert told(w.heard("stranger", stopped=False, now=1.0)) == []


def test_throttle_counts_what_it_holds_back() -> None:
    throttle = RateLimit()
    assert sum(throttle.admits(100.0) for _ in range(PER_WINDOW + 7)) == PER_WINDOW
    assert throttle.settle(100.0) == 0
    assert throttle.settle(100.0 + WINDOW_S) == 7
    assert throttle.admits(100.0 + WINDOW_S)
    assert throttle.settle(100.0 + 5 * WINDOW_S) == 0
    assert sum(throttle.admits(100.0 + 5 * WINDOW_S) for _ in range(PER_WINDOW)) == PER_WINDOW
