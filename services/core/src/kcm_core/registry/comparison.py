"""When the registry is compared with the second store again: after other Cores have ended."""

from __future__ import annotations

import asyncio
from typing import Final

from kcm_killswitch.model.registry_lease import RegistryLease
from kcm_runtime.clock import Clock

from kcm_core.registry.keeper import RegistryKeeper

AGAIN_S: Final = 0.1
"""Seconds from the end of another Core's lease until the registry is compared again."""


class Comparison:
    """Compares the registry again after Cores that showed another one have ended.

    A living Core that knows another registry repeats its lease entry, which causes a comparison. A
    Core that ended sends nothing more, for example this Core's previous incarnation.
    """

    def __init__(self, lease: RegistryLease, clock: Clock) -> None:
        self._lease: Final = lease
        self._clock: Final = clock
        self._timer: asyncio.TimerHandle | None = None
        self.keeper: RegistryKeeper | None = None
        self.count = 0
        """How often the registry had everything that the second store has."""

    def compared(self) -> None:
        """The registry has everything that the second store has."""
        self.count += 1
        again_s = self._lease.compared(self._clock.elapsed())
        self.close()
        if again_s is not None and self.keeper is not None:
            self._timer = asyncio.get_running_loop().call_later(
                again_s + AGAIN_S, self.keeper.compare
            )

    def close(self) -> None:
        """Stop comparing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
