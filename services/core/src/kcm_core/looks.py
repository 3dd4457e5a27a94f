"""Operators' looks and refusals, on record without filling it.

Whoever watches a kill asks four times a second, and a client asks again after a refusal that may
pass. The first look of an operator at something, and the first refusal of something for a reason,
is recorded at once. Further ones of the same within ``EVERY_S`` are counted, and recorded as one
event with their number when that time is over.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Final

from kcm_bus.emitting import Emit
from kcm_schemas.audit import EventType
from kcm_schemas.codes import Code

from kcm_core.requested import Requested

EVERY_S: Final = 60.0
"""Seconds whose looks at the same thing, or refusals of it, are one event."""

WATCHED_MAX: Final = 1024
"""Different looks and refusals that are counted at once; any further one is an event of its own."""

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
        EventType.ADMIN_ROSTER_LISTED,
        EventType.ADMIN_REGISTRY_SHOW,
        EventType.ADMIN_KEY_STATUS,
    }
)
"""Requests that change nothing."""


_Key = tuple[EventType, str, tuple[tuple[str, object], ...], Code, str]


@dataclass(slots=True)
class _Counted:
    tell: partial[None]
    timer: asyncio.TimerHandle
    more: int = 0


class Looks:
    """Records them, as many events as there are different ones in a minute."""

    def __init__(self, emit: Emit) -> None:
        self._emit: Final = emit
        self._counted: dict[_Key, _Counted] = {}

    def record(
        self,
        event: EventType,
        operator: str,
        what: Requested,
        code: Code = Code.OK,
        detail: str = "",
    ) -> None:
        """Somebody looked at something and was answered, or asked for something and was refused."""
        key = (event, operator, tuple(sorted(what.items())), code, detail)
        counted = self._counted.get(key)
        if counted is not None:
            counted.more += 1
            return
        tell = partial(self._emit, event, **what, actor=operator)
        if code is not Code.OK:
            tell = partial(tell, code=code, detail=detail)
        tell(count=1)
        if len(self._counted) < WATCHED_MAX:
            loop = asyncio.get_running_loop()
            self._counted[key] = _Counted(tell, loop.call_later(EVERY_S, self._tell, key))

    def close(self) -> None:
        """Record what was counted."""
        for key, counted in list(self._counted.items()):
            counted.timer.cancel()
            self._tell(key)

    def _tell(self, key: _Key) -> None:
        counted = self._counted.pop(key)
        if counted.more:
            counted.tell(count=counted.more)
