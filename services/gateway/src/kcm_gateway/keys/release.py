"""The part of a purge that can wait: pools without keys, and memory that was overwritten.

To clear a thousand pools and unmap megabytes takes longer than to overwrite the keys, and a receipt
must not wait for it. So it happens afterwards in small pieces, with turns for all other work in
between.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Final

from kcm_gateway.keys.blocks import Blocks
from kcm_gateway.keys.pool import KeyPool

AFTER_S: Final = 0.02
"""Seconds from a purge to the first piece: the receipt and other purges come first."""

POOLS_AT_ONCE: Final = 16
"""Pools that one piece clears: about 0.1 ms."""

SLABS_AT_ONCE: Final = 2
"""Slabs that one piece unmaps: about 0.2 ms."""


class DeferredRelease:
    """Clears the remains of purges, piece by piece."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks: Final = blocks
        self._pools: deque[KeyPool] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def later(self, pools: Iterable[KeyPool]) -> None:
        """Take pools whose keys are wiped; calls that wait for their keys fail when one is cleared.

        A few are cleared at once, which for most tenants is all. Without a running loop, for
        example at the end of a process, everything is done at once.
        """
        self._pools.extend(pools)
        self._clear()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.finish()
            return
        if self._timer is None:
            self._timer = loop.call_later(AFTER_S, self._piece, loop)

    def finish(self) -> None:
        """Do all that is left, now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._step():
            pass

    def _piece(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(0, self._piece, loop) if self._step() else None

    def _step(self) -> bool:
        """Do one piece; returns whether there is more."""
        self._clear()
        more = self._blocks.reap(SLABS_AT_ONCE)
        return more or bool(self._pools)

    def _clear(self) -> None:
        for _ in range(min(POOLS_AT_ONCE, len(self._pools))):
            self._pools.popleft().clear()
