"""Operators' looks, on record without filling it: whoever watches a kill asks four times a second.

The first look of an operator at something is recorded at once. Further ones at the same within
``EVERY_S`` are counted, and recorded as one event with their number when that time is over.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from kcm_bus.emitting import Emit
from kcm_schemas.audit import EventType

from kcm_core.requested import Requested

EVERY_S: Final = 60.0
"""Seconds whose looks at the same thing are one event."""

WATCHED_MAX: Final = 1024
"""Different looks that are counted at once; any further one is an event of its own."""

LOOKS: Final = frozenset(
    {
        EventType.ADMIN_TENANT_LIST,
        EventType.ADMIN_TENANT_FIND,
        EventType.ADMIN_TENANT_SHOW,
        EventType.ADMIN_LINK_LIST,
        EventType.ADMIN_SERVICE_LIST,
        EventType.ADMIN_HOLD_STATUS,
        EventType.ADMIN_HOLD_SHOW,
        EventType.ADMIN_HOLD_LIST,
        EventType.ADMIN_HOLD_PREVIEW,
        EventType.ADMIN_HOLD_EXPORT,
        EventType.ADMIN_ROSTER_SHOW,
        EventType.ADMIN_ROSTER_SIGNED,
        EventType.ADMIN_REGISTRY_SHOW,
        EventType.ADMIN_KEY_STATUS,
    }
)
"""Requests that change nothing."""

_Key = tuple[EventType, str, tuple[tuple[str, object], ...]]


@dataclass(slots=True)
class _Counted:
    what: Requested
    timer: asyncio.TimerHandle
    more: int = 0


class Looks:
    """Records them."""

    def __init__(self, emit: Emit) -> None:
        self._emit: Final = emit
        self._counted: dict[_Key, _Counted] = {}

    def record(self, event: EventType, operator: str, what: Requested) -> None:
        """Somebody looked at something, and was answered."""
        key = (event, operator, tuple(sorted(what.items())))
        counted = self._counted.get(key)
        if counted is not None:
            counted.more += 1
            return
        self._emit(event, **what, actor=operator, count=1)
        if len(self._counted) < WATCHED_MAX:
            loop = asyncio.get_running_loop()
            self._counted[key] = _Counted(what, loop.call_later(EVERY_S, self._tell, key))

    def close(self) -> None:
        """Record what was counted."""
        for key, counted in list(self._counted.items()):
            counted.timer.cancel()
            self._tell(key)

    def _tell(self, key: _Key) -> None:
        event, operator, _ = key
        counted = self._counted.pop(key)
        if counted.more:
            self._emit(event, **counted.what, actor=operator, count=counted.more)
