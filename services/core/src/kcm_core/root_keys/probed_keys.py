"""The set of root keys that are probed: those by which something is open, and those that are held.

The set is updated incrementally when a tenant is opened, closed, held or lifted.
"""

from __future__ import annotations

from typing import Final

from kcm_killswitch.model.admission import Admission
from kcm_killswitch.model.key_leases import Target
from kcm_killswitch.model.probe_scheduler import ProbeScheduler
from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.timing import Timing

from kcm_core.providers.uri import key_name

HINT_EVERY_S: Final = 1.0
"""Shortest time in seconds between two hints about one key that have an effect."""

HINTS_MAX: Final = 4096
"""Keys whose last hint is remembered."""


class Watched:
    """The root keys for which one Core's key monitor plans probes."""

    def __init__(
        self, plan: ProbeScheduler, admission: Admission, registry: Registry, timing: Timing
    ) -> None:
        self._plan: Final = plan
        self._admission: Final = admission
        self._registry: Final = registry
        self._timing: Final = timing
        self._hinted_at: dict[str, float] = {}
        self._named: dict[str, set[Target]] = {}
        """Keys by each name that a hint may use for them."""
        self.held: set[Target] = set()
        """The held keys of the last call; they are probed to learn when they are allowed again."""

    def follow(self, held: set[Target], now: float) -> None:
        """Plan for the keys whose open or held state changed since the last call."""
        opened = self._admission.opened
        for target in {*opened.changes(), *(held ^ self.held)}:
            if target in opened or target in held:
                window_s = self._window_s(target) if target in opened else None
                self._plan.watch(target, now, window_s)
                for name in self._names(target):
                    self._named.setdefault(name, set()).add(target)
            else:
                self._plan.drop(target)
                for name in self._names(target) & self._named.keys():
                    self._named[name].discard(target)
                    if not self._named[name]:
                        del self._named[name]
        self.held = held

    def hinted(self, key: str, now: float) -> set[str]:
        """The links of a hint, by its provider's name for a key.

        At most once a second for each key, because an attacker can forge hints: they must be cheap.
        """
        if now - self._hinted_at.get(key, float("-inf")) < HINT_EVERY_S:
            return set()
        if len(self._hinted_at) >= HINTS_MAX:
            self._hinted_at.clear()
        self._hinted_at[key] = now
        return {target.link for target in self._named.get(key, ())}

    def _window_s(self, target: Target) -> float:
        link = self._registry.link(target.link)
        return self._timing.probe_window_s(link.model if link else "byok")

    def _names(self, target: Target) -> set[str]:
        link = self._registry.link(target.link)
        return {target.key_version, key_name(link.uri) if link else ""} - {""}
