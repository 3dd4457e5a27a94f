"""The holds that a customer's key causes: placed when it refuses, lifted after flap damping.

A Core lifts only its own region's holds: another region's hold is a refusal that was seen there.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from kcm_killswitch.model.flap_damping import FlapDamping, damped
from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.replica.killswitch import KillSwitch
from kcm_runtime.host import Host
from kcm_runtime.logs import fields
from kcm_runtime.tasks import TaskSet
from kcm_schemas import limits
from kcm_schemas.codes import KcmError
from kcm_schemas.l1 import L1State
from kcm_trust.statements import l1_hold, lift

log = logging.getLogger(__name__)

TELLS_MAX: Final = 60
"""Attempts to broadcast a hold or lift; the stream and the pulls also carry it."""

TELL_AGAIN_S: Final = 0.5
"""Seconds between these attempts."""


class AutomaticHolds:
    """The holds of cause ``l1`` that this region placed."""

    def __init__(
        self,
        host: Host,
        replica_state: ReplicaState,
        switch: KillSwitch,
    ) -> None:
        self._me: Final = host.me
        self._clock: Final = host.clock
        self._random: Final = host.randomness
        self._revocations: Final = replica_state.revocations
        self.damping: Final = FlapDamping(replica_state.freshness.timing.settle_s)
        self._switch: Final = switch
        self._tasks: Final = TaskSet()

    @property
    def links(self) -> set[str]:
        """The links with such holds."""
        return {link for link in self._revocations.held_links if self.on(link)}

    def on(self, link: str) -> list[HoldState]:
        """The holds on one link that are not lifted."""
        return [
            state
            for state in self._revocations.active_on("link", link)
            if state.hold.cause == "l1" and state.hold.origin == self._me.region
        ]

    def refused(self, link: str) -> None:
        """A Core in this region was refused: reset the run of successes."""
        self.damping.refused(link)

    def place(self, link: str, state: L1State) -> None:
        """Place a hold, so that every instance purges for the link, unless there is one already.

        If this region has no tenant on the link, it places no hold: it would not be valid.
        """
        self.damping.refused(link)
        if self.on(link) or not self._revocations.serves_here(link):
            return
        raw = l1_hold(
            self._me.identity,
            link=link,
            origin=self._me.region,
            issued_ms=self._clock.unix_ms(),
            reason=f"the customer's key is {state.value}",
            salt=self._random.public(limits.ID_SIZE),
        )
        self._issue(raw)

    def succeeded(self, link: str, position: int, moment: float) -> int:
        """Count a successful use of the key; lift holds after damping, and return their number.

        ``position`` is the stream sequence from before the call to the key. ``moment`` is the
        earliest time of that position on this Core's clock.
        """
        holds = self.on(link)
        held_at = [self._switch.durable_at(state.hold.id) for state in holds]
        if not holds or not all(held_at):
            return 0
        self.damping.success(link, position, max(held_at), moment, self._clock.elapsed())
        times = self._revocations.refused_ms(self._me.region, link)
        if not self.damping.ripe(link, damped(self.damping.settle_s, times)):
            return 0
        self.damping.refused(link)
        for state in holds:
            raw = lift(
                self._me.identity,
                state.raw,
                issued_ms=self._clock.unix_ms(),
                reason="the customer's key is enabled again",
            )
            self._issue(raw)
        return len(holds)

    def close(self) -> None:
        """Stop broadcasting."""
        self._tasks.close()

    def _issue(self, raw: bytes) -> None:
        """Verify the statement that this Core signed, purge for it, write it, and broadcast it."""
        state = self._switch.verify(raw)
        self._switch.issue(state)
        self._tasks.spawn(self._broadcast(state))

    async def _broadcast(self, state: HoldState) -> None:
        """Broadcast, and retry if the broadcast fails: other regions wait for it."""
        for _ in range(TELLS_MAX):
            try:
                await self._switch.broadcast(state)
            except KcmError as error:
                log.warning(
                    "a hold or lift could not be broadcast: %s",
                    error.detail,
                    extra=fields(hold=state.hold.id, link=state.hold.target, code=error.code.value),
                )
                await asyncio.sleep(TELL_AGAIN_S)
            else:
                return
