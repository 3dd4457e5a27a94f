"""Silence: emitters that should be heard and are not. Pure; time is an argument.

Every emitter sends an event at least every ten seconds. One that is silent for ``SILENT_S`` is
reported once, and again when it is heard. While a region's stream cannot be read, its emitters are
not reported as silent: the region itself is reported.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from kcm_schemas.roster import Instance

from kcm_auditor.journal.format import Incident, IncidentKind

SILENT_S: Final = 45.0
"""Seconds of silence before an emitter is reported: four heartbeats and a restart of the broker."""

UNREACHABLE_S: Final = 15.0
"""Seconds that a region's stream may be unreadable before it is reported."""


@dataclass(slots=True)
class _Emitter:
    region: str
    heard: float
    silent: bool = False
    stopped: bool = False


@dataclass(slots=True)
class _Region:
    down_since: float | None
    reported: bool = False


class Watch:
    """When each emitter was heard, in monotonic seconds."""

    def __init__(self, regions: Iterable[str], now: float) -> None:
        self._regions: Final = {region: _Region(now) for region in regions}
        self._emitters: Final = dict[str, _Emitter]()

    def expect(self, instances: Iterable[Instance], now: float) -> None:
        """Watch the instances that are not retired and whose region is followed, and no others."""
        wanted = {
            i.instance: i.region
            for i in instances
            if i.region in self._regions and i.retired is None
        }
        for name in self._emitters.keys() - wanted.keys():
            del self._emitters[name]
        for name, region in wanted.items():
            self._emitters.setdefault(name, _Emitter(region, now))

    def heard(self, emitter: str, *, stopped: bool, now: float) -> tuple[Incident, ...]:
        """Note a recorded batch; ``stopped`` if it ends with the emitter's orderly stop."""
        state = self._emitters.get(emitter)
        if state is None:
            return ()
        was_silent, state.silent = state.silent, False
        state.heard, state.stopped = now, stopped
        return (_incident(IncidentKind.HEARD, state.region, emitter),) if was_silent else ()

    def reachable(self, region: str, *, up: bool, now: float) -> tuple[Incident, ...]:
        """Note whether a region's stream can be read."""
        state = self._regions[region]
        if not up:
            state.down_since = now if state.down_since is None else state.down_since
            return ()
        if state.down_since is not None:
            # They were silent because the stream could not be read.
            for emitter in self._emitters.values():
                if emitter.region == region:
                    emitter.heard = max(emitter.heard, now)
        reported, state.down_since, state.reported = state.reported, None, False
        return (_incident(IncidentKind.REACHABLE, region),) if reported else ()

    def due(self, now: float) -> tuple[Incident, ...]:
        """Return what has to be reported by now."""
        found: list[Incident] = []
        for name, region in self._regions.items():
            if region.down_since is None or region.reported:
                continue
            if now - region.down_since >= UNREACHABLE_S:
                region.reported = True
                found.append(_incident(IncidentKind.UNREACHABLE, name))
        for name, emitter in self._emitters.items():
            if emitter.silent or emitter.stopped or not self.is_up(emitter.region):
                continue
            if now - emitter.heard >= SILENT_S:
                emitter.silent = True
                found.append(_incident(IncidentKind.SILENT, emitter.region, name))
        return tuple(found)

    def is_silent(self, emitter: str) -> bool:
        """Whether an emitter was reported and has not been heard since."""
        state = self._emitters.get(emitter)
        return state is not None and state.silent

    def is_up(self, region: str) -> bool:
        """Whether a region's stream can be read."""
        state = self._regions.get(region)
        return state is not None and state.down_since is None


def _incident(kind: IncidentKind, region: str, emitter: str | None = None) -> Incident:
    return Incident(incident=kind, region=region, emitter=emitter)
