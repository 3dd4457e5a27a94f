"""Repeated events, recorded without a way to flood the audit stream.

A client that watches a kill asks four times a second, a client repeats a request after a transient
failure, and every client that can publish can send forged messages. The first event of a kind is
recorded at once. Further ones within a minute are counted, and recorded as one event with their
number when that time is over, or at the end (``kcm_runtime.audit.pacing``).

The kind of an event is its whole content. Kinds are bounded for each actor, which is verified or
``None``: above the bound, the rest of an actor's events is recorded without content, and no event
of another actor is hidden.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from functools import partial
from typing import Any, Final, TypedDict, cast

from kcm_schemas.audit import EventType
from kcm_schemas.codes import Code

from kcm_runtime.audit.pacing import Paced
from kcm_runtime.audit.port import Emit

KINDS_MAX: Final = 256
"""Kinds of one actor that are counted at once: lists and tenants that an operator reads within a
minute. Further ones are counted with others of the same type and code."""

REST: Final = "of other kinds"
"""The detail of an event that stands for kinds above the bound."""


class What(TypedDict, total=False):
    """The fields of an audit event that name its object."""

    target: str
    hold: bytes
    tenant: str
    service: str


_Kind = tuple[EventType, str | None, Code, str, tuple[tuple[str, object], ...]]


class Repeats:
    """Records events, at most two of each kind in a minute."""

    def __init__(self, emit: Emit, kinds_max: int = KINDS_MAX, rest: str = REST) -> None:
        self._emit: Final = emit
        self._kinds_max: Final = kinds_max
        self._rest: Final = rest
        self._paced: Final = Paced(self._end)
        self._kinds: Final[Counter[str | None]] = Counter()
        """By actor, how many kinds are counted, without the rest."""

    def record(
        self,
        event: EventType,
        actor: str | None,
        what: What,
        code: Code = Code.OK,
        detail: str = "",
    ) -> None:
        """Record one event. ``actor`` must be verified."""
        kind: _Kind = (event, actor, code, detail, tuple(sorted(what.items())))
        if kind not in self._paced:
            if self._kinds[actor] < self._kinds_max:
                self._kinds[actor] += 1
            else:
                kind = (event, actor, code, self._rest, ())
        self._paced.record(kind, partial(self._tell, kind))

    def close(self) -> None:
        """Record the events that are only counted so far."""
        self._paced.close()

    def _tell(self, kind: _Kind, count: int) -> None:
        event, actor, code, detail, what = kind
        fields: dict[str, Any] = {**dict(what), "actor": actor, "count": count}
        if code is not Code.OK:
            fields["code"] = code
        if detail:
            fields["detail"] = detail
        self._emit(event, **fields)

    def _end(self, kind: Hashable) -> None:
        _, actor, _, detail, _ = cast("_Kind", kind)
        if detail != self._rest:
            self._kinds[actor] -= 1
            if not self._kinds[actor]:
                del self._kinds[actor]
