"""What comes again and again, on record without filling it.

Whoever watches a kill asks four times a second, a client asks again after a refusal that may pass,
and anybody who can publish can send something forged. The first of a kind is recorded at once.
Further ones of the same kind within ``EVERY_S`` are counted, and recorded as one event with their
number when that time is over, or at the end.

A kind is all that its event says. Kinds are bounded by actor, who is somebody that is believed, or
nobody: whoever brings too many of them has the rest recorded without what they were about, and
hides nothing of others.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Final, TypedDict

from kcm_schemas.audit import EventType
from kcm_schemas.codes import Code

from kcm_bus.emitting import Emit

EVERY_S: Final = 60.0
"""Seconds whose events of one kind are one event."""

KINDS_MAX: Final = 256
"""Kinds of one actor that are counted at once: lists and tenants that an operator looks at within a
minute. A further one is counted with others of its type and code."""

REST: Final = "of other kinds"
"""The detail of an event for kinds that are too many."""


class What(TypedDict, total=False):
    """The fields of an audit event that say what it is about."""

    target: str
    hold: bytes
    tenant: str
    service: str


_Kind = tuple[EventType, str | None, Code, str, tuple[tuple[str, object], ...]]


@dataclass(slots=True)
class _Counted:
    tell: partial[None]
    timer: asyncio.TimerHandle
    more: int = 0


class Repeats:
    """Records events, as many as there are different ones in ``EVERY_S``."""

    def __init__(self, emit: Emit, kinds_max: int = KINDS_MAX, rest: str = REST) -> None:
        self._emit: Final = emit
        self._kinds_max: Final = kinds_max
        self._rest: Final = rest
        self._counted: dict[_Kind, _Counted] = {}
        self._kinds: Final[Counter[str | None]] = Counter()
        """By actor, how many are counted; the rest of an actor's not included."""

    def record(
        self,
        event: EventType,
        actor: str | None,
        what: What,
        code: Code = Code.OK,
        detail: str = "",
    ) -> None:
        """Something happened, once. ``actor`` has to be somebody who is believed."""
        kind: _Kind = (event, actor, code, detail, tuple(sorted(what.items())))
        if kind not in self._counted:
            if self._kinds[actor] < self._kinds_max:
                self._begin(kind, partial(self._emit, event, **what))
                self._kinds[actor] += 1
                return
            kind = (event, actor, code, self._rest, ())
            if kind not in self._counted:
                self._begin(kind, partial(self._emit, event))
                return
        self._counted[kind].more += 1

    def close(self) -> None:
        """Record what was counted."""
        for kind, counted in list(self._counted.items()):
            counted.timer.cancel()
            self._tell(kind)

    def _begin(self, kind: _Kind, tell: partial[None]) -> None:
        _, actor, code, detail, _ = kind
        tell = partial(tell, actor=actor)
        if code is not Code.OK:
            tell = partial(tell, code=code)
        if detail:
            tell = partial(tell, detail=detail)
        tell(count=1)
        timer = asyncio.get_running_loop().call_later(EVERY_S, self._tell, kind)
        self._counted[kind] = _Counted(tell, timer)

    def _tell(self, kind: _Kind) -> None:
        counted = self._counted.pop(kind)
        _, actor, _, detail, _ = kind
        if detail != self._rest:
            self._kinds[actor] -= 1
            if not self._kinds[actor]:
                del self._kinds[actor]
        if counted.more:
            counted.tell(count=counted.more)
