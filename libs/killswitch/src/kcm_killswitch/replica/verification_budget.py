"""How much work anybody gets for statements that are not believed.

Whoever can publish can send something forged, and a signature has to be checked before that shows:
some 0.1 ms each. So every source has a budget of failures: a flood costs this process a bounded
part of its time, and the sources are kept apart, so one region's flood delays that region's
statements and nobody else's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kcm_schemas.signed import STATEMENT_MAX, Kind

FAILURES_AT_ONCE: Final = 64
"""Failures of a source that are looked at without a wait: some 8 ms of work."""

FAILURES_PER_S: Final = 64.0
"""Failures of a source a second, in the long run: about a hundredth of a processor's time."""

WAITING_MAX: Final = 256
"""Statements of one source that wait; one more pushes out the oldest."""

SOURCES_MAX: Final = 64
"""Sources that are kept apart: as many regions as a roster may have. All others share one."""


@dataclass(slots=True)
class _Account:
    left: float
    since: float


class Budgets:
    """Failures that each source may still cause. Times in seconds of a clock that runs forward."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}

    def left(self, source: str, now: float) -> int:
        """How many statements of a source may be looked at now."""
        return int(self._account(source, now).left)

    def failed(self, source: str, now: float) -> None:
        """What was looked at was not believed, or said nothing new."""
        account = self._account(source, now)
        account.left = max(0.0, account.left - 1)

    def _account(self, source: str, now: float) -> _Account:
        if source not in self._accounts and len(self._accounts) >= SOURCES_MAX:
            source = ""
        account = self._accounts.setdefault(source, _Account(FAILURES_AT_ONCE, now))
        gained = (now - account.since) * FAILURES_PER_S
        account.left, account.since = min(FAILURES_AT_ONCE, account.left + gained), now
        return account


Look = Callable[[bytes], bool]
"""Looks at a statement; whether it was believed and said something new."""


class Waiting:
    """Statements that are looked at once, at once or as their source's budget allows."""

    def __init__(self, look: Look) -> None:
        self._look: Final = look
        self._budgets: Final = Budgets()
        self._queues: dict[str, deque[bytes]] = {}

    def take(self, source: str, raw: bytes, now: float) -> bool:
        """Look at a statement, behind what waits of its source; ``False`` when some waits on.

        What is larger than a lift is none, and is not kept waiting.
        """
        if len(raw) > STATEMENT_MAX[Kind.LIFT]:
            return source not in self._queues
        if source not in self._queues and len(self._queues) >= SOURCES_MAX:
            source = ""
        queue = self._queues.setdefault(source, deque(maxlen=WAITING_MAX))
        queue.append(raw)
        return self._work(source, queue, now)

    def again(self, now: float) -> bool:
        """Look at what waits; ``False`` when some waits on."""
        done = [self._work(source, queue, now) for source, queue in list(self._queues.items())]
        return all(done)

    def _work(self, source: str, queue: deque[bytes], now: float) -> bool:
        while queue and self._budgets.left(source, now):
            if not self._look(queue.popleft()):
                self._budgets.failed(source, now)
        if not queue:
            del self._queues[source]
        return not queue
