"""Holds and lifts by broadcast: fast, across regions, and not stored.

Verification costs processor time, and any client with the control bus's password can broadcast. So
each source has a budget of statements that do not count. A broadcast that exceeds it waits, and a
statement that is known already needs no budget.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from kcm_runtime.host import Host
from kcm_runtime.nats.ports import Delivery, PubSub
from kcm_schemas import subjects

from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.replica.verification_budget import WaitingStatements

LOOK_AGAIN_S: Final = 0.1
"""Seconds between attempts to verify waiting broadcasts, whose source exceeded its budget of
statements that did not count."""


class HoldBroadcasts:
    """Receives broadcasts within the budgets of their sources, and sends broadcasts."""

    def __init__(
        self,
        host: Host,
        *,
        control_bus: PubSub,
        known: Callable[[bytes], bool],
        take: Callable[[bytes], bool],
    ) -> None:
        """``known`` says whether exactly these bytes were verified.

        ``take`` applies a statement, and returns whether it was new and valid.
        """
        self._region: Final = host.me.region
        self._clock: Final = host.clock
        self._bus: Final = control_bus
        self._known: Final = known
        self._take: Final = take
        self._waiting: Final = WaitingStatements(take)
        self._looking: asyncio.TimerHandle | None = None
        self._closing = False

    async def start(self) -> None:
        """Subscribe; raises ``unavailable``."""
        await self._bus.subscribe(subjects.broadcast_holds(), self.receive)

    def close(self) -> None:
        """Verify no more waiting broadcasts."""
        self._closing = True
        if self._looking is not None:
            self._looking.cancel()

    async def send(self, state: HoldState) -> None:
        """Send a hold, or its lift, to every instance of every region; raises ``unavailable``."""
        hold = state.hold
        subject = subjects.broadcast_hold(self._region, hold.scope, hold.id)
        await self._bus.publish(subject, state.message)
        await self._bus.flush()

    async def receive(self, message: Delivery) -> None:
        """Process it at once if it is known, or if its source is within its budget."""
        if self._known(message.data):
            self._take(message.data)
        elif not self._waiting.take(
            subjects.speaker(message.subject), message.data, self._clock.elapsed()
        ):
            self._look_again()

    def _look_again(self) -> None:
        if self._looking is None and not self._closing:
            loop = asyncio.get_running_loop()
            self._looking = loop.call_later(LOOK_AGAIN_S, self._look)

    def _look(self) -> None:
        self._looking = None
        if not self._waiting.again(self._clock.elapsed()):
            self._look_again()
