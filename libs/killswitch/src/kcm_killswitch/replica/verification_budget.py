"""Budgets for the verification of statements that turn out not to count.

Any client that can publish can send a forged statement, and only the signature check detects it:
about 0.1 ms each. So every source has a budget of failures. A flood costs this process a bounded
part of its time. Sources have separate budgets, so that a flood from one region delays only the
statements of that region.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kcm_schemas.signed import STATEMENT_MAX, Kind

FAILURES_AT_ONCE: Final = 64
"""Failures of a source that are processed without a wait: about 8 ms of work."""

FAILURES_PER_S: Final = 64.0
"""Failures of a source a second, in the long run: about one per cent of a processor's time."""

WAITING_MAX: Final = 256
"""Statements of one source that wait; a further one displaces the oldest."""

SOURCES_MAX: Final = 64
"""Sources with separate budgets: the most regions a roster may have. All others share one."""


@dataclass(slots=True)
class _Account:
    left: float
    since: float


class Budgets:
    """Failures that each source may still cause. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}

    def left(self, source: str, now: float) -> int:
        """The number of statements of a source that may be verified now."""
        return int(self._account(source, now).left)

    def failed(self, source: str, now: float) -> None:
        """Charge a source for a statement that did not count, or had no news."""
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
"""Verifies a statement; returns whether it counts and was new."""


class WaitingStatements:
    """Statements that are verified once, at once or when the budget of their source allows it."""

    def __init__(self, look: Look) -> None:
        self._look: Final = look
        self._budgets: Final = Budgets()
        self._queues: dict[str, deque[bytes]] = {}

    @property
    def sources(self) -> int:
        """How many sources have statements that wait: ``SOURCES_MAX + 1`` at most."""
        return len(self._queues)

    def take(self, source: str, raw: bytes, now: float) -> bool:
        """Verify a statement, after those of its source that wait; ``False`` if some still wait.

        A message that is larger than any lift cannot be a valid one; it is dropped.
        """
        if len(raw) > STATEMENT_MAX[Kind.LIFT]:
            return source not in self._queues
        if source not in self._queues and len(self._queues) >= SOURCES_MAX:
            source = ""
        queue = self._queues.setdefault(source, deque(maxlen=WAITING_MAX))
        queue.append(raw)
        return self._work(source, queue, now)

    def again(self, now: float) -> bool:
        """Verify what waits; ``False`` if some statements still wait."""
        done = [self._work(source, queue, now) for source, queue in list(self._queues.items())]
        return all(done)

    def _work(self, source: str, queue: deque[bytes], now: float) -> bool:
        while queue and self._budgets.left(source, now):
            if not self._look(queue.popleft()):
                self._budgets.failed(source, now)
        if not queue:
            del self._queues[source]
        return not queue
