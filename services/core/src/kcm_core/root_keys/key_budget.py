"""Reports how many root keys a Core has in use: in the log, in audit events, and on request.

It reports once before tenants are unloaded for lack of probes, then how many tenants were unloaded,
and once when there is room again.
"""

from __future__ import annotations

import logging
from typing import Final

from kcm_killswitch.model.key_budget import KeyBudget, Room
from kcm_killswitch.model.probe_scheduler import ProbeScheduler
from kcm_runtime.audit.port import Emit
from kcm_runtime.clock import Clock
from kcm_runtime.instance import InstanceContext
from kcm_runtime.logs import fields
from kcm_schemas.admin.key_budget import KeyUse
from kcm_schemas.audit import EventType

log = logging.getLogger(__name__)

TELL_EVERY_S: Final = 10.0
"""Seconds between two events with the number of unloaded tenants; they count every tenant."""


class KeysInUse:
    """The number of open keys of one Core's key monitor, compared with its limit."""

    def __init__(self, me: InstanceContext, plan: ProbeScheduler, emit: Emit, clock: Clock) -> None:
        self._me: Final = me
        self._plan: Final = plan
        self._emit: Final = emit
        self._clock: Final = clock
        self._crowding: Final = KeyBudget()
        self._untold = 0
        self._told_at = float("-inf")

    def unloaded(self, tenants: int, now: float) -> None:
        """Count tenants that were unloaded because more keys are in use than can be probed."""
        self._crowding.unloaded(tenants, now)
        self._untold += tenants

    def look(self, now: float) -> None:
        """Report what has changed."""
        changed = self._crowding.look(self._plan.open_keys, self._plan.most, now)
        if changed and self._crowding.room is Room.FILLING:
            log.warning(
                "%s: see probes_per_s; tenants are unloaded when there are more", self._of()
            )
            self._emit(EventType.KEY_FILLING, detail=f"{self._of()}: see probes_per_s")
        elif changed and self._crowding.room is Room.FREE:
            log.info("%s: there is room again", self._of())
            self._emit(EventType.KEY_ROOM, detail=self._of())
        if self._untold and now - self._told_at >= TELL_EVERY_S:
            log.warning(
                "more customers' keys are in use than may be probed (probes_per_s): %d tenants "
                "that were not used for longest were unloaded",
                self._untold,
                extra=fields(count=self._untold),
            )
            self._emit(
                EventType.KEY_CROWDED, count=self._untold, detail=f"{self._of()}: see probes_per_s"
            )
            self._told_at, self._untold = now, 0

    def told(self) -> KeyUse:
        """The current state, for operators. Times are by this Core's wall clock."""
        now, crowding = self._clock.elapsed(), self._crowding
        return KeyUse(
            core=self._me.name,
            region=self._me.region,
            state=crowding.room.value,
            since_ms=self._unix_ms(crowding.since, now),
            in_use=self._plan.open_keys,
            most=self._plan.most,
            unloaded=crowding.recent(now),
            unloaded_all=crowding.unloaded_all,
            unloaded_ms=self._unix_ms(crowding.unloaded_at, now),
        )

    def _of(self) -> str:
        return f"{self._plan.open_keys} of {self._plan.most} keys are in use"

    def _unix_ms(self, moment: float | None, now: float) -> int:
        if moment is None:
            return 0
        return max(0, self._clock.unix_ms() - int((now - moment) * 1000))
