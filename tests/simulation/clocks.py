"""Clocks and randomness of a node, as ``kcm_runtime.clock`` has them.

``elapsed`` is ``CLOCK_BOOTTIME``: it runs on in suspend, unlike the clock of the event loop. The
variant that stands in suspend is what a wrong choice of clock would be.
"""

from __future__ import annotations

import random
from typing import Final

from tests.simulation.loop import SimLoop
from tests.simulation.nodes import Node

EPOCH_MS: Final = 1_800_000_000_000
"""The wall clock when a run begins, in Unix milliseconds."""

BOOTED_S: Final = 1000.0
"""``CLOCK_BOOTTIME`` when a run begins: an instance is not as old as its machine."""


class SimClock:
    """Both clocks of one node."""

    def __init__(
        self, loop: SimLoop, node: Node, *, wall_s: float = 0.0, stands_in_suspend: bool = False
    ) -> None:
        """``wall_s`` is how far the wall clock is off; it can be moved at any time."""
        self._loop: Final = loop
        self._node: Final = node
        self._stands: Final = stands_in_suspend
        self.wall_s = wall_s

    def unix_ms(self) -> int:
        # Somebody sets it right now and then, so that it is off, and does not drift away.
        return EPOCH_MS + int((self._loop.now + self.wall_s) * 1000)

    def elapsed(self) -> float:
        now = self._loop.now
        if self._stands:
            return BOOTED_S + self._node.monotonic(now)
        return BOOTED_S + now * self._node.rate


class SimRandomness:
    """Random bytes of a node that are the same in every run of a seed."""

    def __init__(self, source: random.Random) -> None:
        self._source: Final = source

    def public(self, size: int) -> bytes:
        return self._source.randbytes(size)

    def fill(self, view: memoryview) -> None:
        view[:] = self._source.randbytes(len(view))
