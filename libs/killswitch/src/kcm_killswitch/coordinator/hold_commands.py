"""Placing, lifting and watching holds across regions.

A Core learns a hold that an operator signed (which purges this instance before anything else),
broadcasts it, and writes it to this region's stream; it answers when the stream has acknowledged
the hold. Whether the hold is *complete* is computed from what every region in scope reports after
the hold was durable there: this region by a fresh lease entry and reading the stream up to it, the
others by a pull, which a Core there answers in the same way. ``status`` reads and publishes
nothing; ``place`` with the same hold broadcasts it again, which repairs a lost broadcast or
receipt. The status of a kill that was complete once is read from its stored result.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from kcm_runtime.host import Host
from kcm_runtime.logs import fields
from kcm_runtime.nats.ports import PubSub
from kcm_schemas import limits
from kcm_schemas.admin.holds import BlastRadius
from kcm_schemas.admin.kill_status import HoldStatus, IncarnationStatus, RegionStatus
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import Incarnation, Scope
from kcm_trust.verify import Untrusted

from kcm_killswitch.coordinator.hold_list import HoldList
from kcm_killswitch.coordinator.hold_reach import HoldReach
from kcm_killswitch.coordinator.receipt_collector import ReceiptCollector
from kcm_killswitch.coordinator.region_knowledge import FIRST
from kcm_killswitch.coordinator.region_sync import PULL_TIMEOUT_S, RegionSync
from kcm_killswitch.coordinator.result_watch import ResultLooks, Seen
from kcm_killswitch.coordinator.results import Results
from kcm_killswitch.model.completeness import RegionFacts, hold_status
from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.model.timing import Timing
from kcm_killswitch.replica.killswitch import KillSwitch
from kcm_killswitch.replica.log_fields import of_hold

log = logging.getLogger(__name__)

PATIENCE_MIN_S: Final = 0.05
"""Minimum wait for other regions in seconds, however short the operator's deadline is."""

SPREAD_S: Final = (0.02, 0.32)
"""Seconds between checks that every region has a lift, doubled up to the second value: each check
asks all regions."""


class HoldCommands:
    """The Core's implementation of the kill-switch commands."""

    def __init__(
        self,
        host: Host,
        replica_state: ReplicaState,
        *,
        control_bus: PubSub,
        switch: KillSwitch,
        regions: RegionSync,
        timing: Timing,
        results: Results,
    ) -> None:
        self._me: Final = host.me
        self._bus: Final = control_bus
        self._registry: Final = replica_state.registry
        self._revocations: Final = replica_state.revocations
        self._switch: Final = switch
        self._regions: Final = regions
        self._timing: Final = timing
        self._clock: Final = host.clock
        self.holds: Final = HoldList(host.me, replica_state.revocations, switch)
        self._results: Final = results
        self._reach: Final = HoldReach(host, replica_state, switch=switch)
        self.looks: Final = ResultLooks(self._seen)
        self.receipts: Final = ReceiptCollector(
            host, control_bus=control_bus, on_result=self.take_result
        )

    async def start(self) -> None:
        """Collect receipts."""
        await self.receipts.start()

    def close(self) -> None:
        """Stop checking the kills that other Cores report as finished."""
        self.looks.close()
        self.receipts.close()

    async def place(self, raw: bytes, deadline_ms: int) -> HoldStatus:
        """Take a signed hold or lift, broadcast it, and wait until it is durable in this region.

        Repeats are broadcast again: instances that missed it, or whose receipt was lost, answer.
        """
        order = self._verify(raw)
        if self._revocations.holds.ends(order):
            return await self._results.of_lifted(order.hold.id, self._paged(order))
        hold_id = order.hold.id
        self.receipts.placed(hold_id)
        self._switch.issue(order)
        await self._broadcast(order)
        left_s = max(0.0, (deadline_ms - self._clock.unix_ms()) / 1000)
        if not await self._switch.until_durable(hold_id, left_s):
            why = self._switch.why_not_durable or "the stream does not acknowledge it"
            raise KcmError(
                Code.UNAVAILABLE, f"the hold is in force here, but not yet durable: {why}"
            )
        # Wait for half of the remaining time only: a check is slow when a region is cut off, and
        # the answer has to arrive before the caller's deadline.
        now_ms = self._clock.unix_ms()
        until_ms = now_ms + (deadline_ms - now_ms) // 2
        status = await self.status(hold_id, deadline_ms)
        wait, most = SPREAD_S
        while status.lifted and not status.complete and self._clock.unix_ms() < until_ms:
            # The reply to a lift says that every region has it; a hold's progress is polled.
            await asyncio.sleep(wait)
            wait = min(most, 2 * wait)
            status = await self.status(hold_id, deadline_ms)
        return status

    async def status(self, hold_id: bytes, deadline_ms: int | None = None) -> HoldStatus:
        """The progress of a hold, from fresh reports of every region in scope.

        The call waits for a region that is cut off during half of the remaining time only, so that
        the caller gets the facts of the other regions before its deadline. If a result could not be
        stored, the Core retries in the background, even if no further request comes.
        """
        status = await self._status(hold_id, deadline_ms)
        if status.concluded is not None and status.unstored:
            self.looks.look(hold_id, self._me.region)
        return status

    async def _status(self, hold_id: bytes, deadline_ms: int | None) -> HoldStatus:
        if self._revocations.holds.get(hold_id) is None:
            for ended in await self.holds.archived(hold_id.hex()):
                return await self._results.of_lifted(hold_id, self._paged(ended))
        state = self._known(hold_id)
        if not state.lifted:
            finished = await self._results.standing(state, _bare(state))
            if finished is not None:
                return finished
        regions = self._reach.regions(state.hold.scope, state.hold.target)
        within_s = self._patience_s(deadline_ms)
        offered: list[bytes] = []
        asked = (self.facts(one, state, within_s, offered) for one in regions)
        facts = await asyncio.gather(*asked)
        self.receipts.read()
        receipts = self.receipts.of(hold_id)
        known = dict(zip(regions, facts, strict=True))
        status = hold_status(
            state,
            known,
            receipts,
            self._reach.tenants(state.hold.scope, state.hold.target),
            self._timing,
            self._reach.retired,
        )
        if status.lifted:
            return await self._results.of_lifted(hold_id, status)
        if not status.complete:
            return await self._results.kept(state, status)
        since = self.receipts.heard_at(hold_id)
        return await self._results.conclude(state, status, receipts, since, known, offered)

    def take_result(self, raw: bytes, source: str) -> bool:
        """Take a result from a Core that reports a finished kill, and check the kill here, too.

        Returns whether a check began. A report about a hold that is not in force here starts none.
        """
        found = self._results.heard(raw, source)
        if found is None:
            return False
        state = self._revocations.holds.get(found.result.hold_id)
        if state is None or state.lifted:
            return False
        return self.looks.look(state.hold.id, source)

    async def _seen(self, hold_id: bytes) -> Seen:
        """Whether a hold has its result in this region's store, or has ended without one.

        The Core that reported the kill has receipts that this Core may lack. So the hold is
        broadcast once more before the next check, and every instance answers.
        """
        status = await self.status(hold_id)
        state = self._revocations.holds.get(hold_id)
        if state is not None and not status.lifted and not status.complete:
            await self._broadcast(state)
        if status.concluded is not None and status.unstored:
            return "not stored"
        return "stored" if status.lifted or status.concluded is not None else "not finished"

    async def preview(
        self, scope: Scope, target: str, deadline_ms: int | None = None, *, instances: bool = True
    ) -> BlastRadius:
        """What a hold would reach. Changes nothing.

        With ``instances``, regions are asked for their incarnations, and the call waits for them as
        in ``status``. Without, the reply is a look-up in the registry, which waits for nothing.
        """
        tenants = sorted(self._revocations.held(scope, target))
        known = [name for name in tenants if self._registry.tenant(name) is not None]
        regions = self._reach.regions(scope, target)
        within_s = self._patience_s(deadline_ms)
        facts = (
            await asyncio.gather(*(self._incarnations_of(one, within_s) for one in regions))
            if instances
            else [[] for _ in regions]
        )
        incarnations = [
            IncarnationStatus(
                instance=incarnation.instance,
                incarnation=incarnation.incarnation,
                role=incarnation.role,
                region=region,
                how="waiting",
                keys=0,
                purge_us=0,
                after_ms=0,
                trouble="",
                retired=self._reach.retired(incarnation.instance),
                left_ms=0,
            )
            for region, found in zip(regions, facts, strict=True)
            for incarnation in found
        ]
        services = sum(self._registry.service_count(name) for name in known)
        return BlastRadius(
            tenants=known[: limits.PAGE_ROWS_MAX],
            total=len(known),
            services=services,
            regions=regions,
            incarnations=incarnations,
        )

    def _paged(self, state: HoldState) -> HoldStatus:
        """The status of a hold that a page ends: lifted, in every region that has the page."""
        hold, sequence = state.hold, self._switch.page_stored_at(state)
        return HoldStatus(
            hold_id=hold.id,
            scope=hold.scope,
            target=hold.target,
            cause=hold.cause,
            lifted=True,
            complete=sequence > 0,
            regions=[
                RegionStatus(
                    region=self._me.region,
                    durable_at=sequence,
                    how="durable" if sequence else "waiting",
                    left_ms=0,
                )
            ],
            incarnations=[],
        )

    def _verify(self, raw: bytes) -> HoldState:
        try:
            return self._switch.verify(raw)
        except Untrusted as error:
            raise KcmError(Code.FORBIDDEN, str(error)) from None

    def _known(self, hold_id: bytes) -> HoldState:
        state = self._revocations.holds.get(hold_id)
        if state is None:
            raise KcmError(Code.UNKNOWN_HOLD, f"no hold {hold_id.hex()} is known in this region")
        return state

    async def _broadcast(self, state: HoldState) -> None:
        try:
            await self._switch.broadcast(state)
        except KcmError as error:
            log.warning(
                "a hold or lift could not be broadcast, and instances get it only from their "
                "region's stream: %s",
                error.detail,
                extra=fields(**of_hold(state), code=error.code.value),
            )

    def _patience_s(self, deadline_ms: int | None) -> float:
        """How long to wait for other regions, in seconds."""
        if deadline_ms is None:
            return PULL_TIMEOUT_S
        left_ms = deadline_ms - self._clock.unix_ms()
        return min(PULL_TIMEOUT_S, max(PATIENCE_MIN_S, left_ms / 2000))

    async def facts(
        self, region: str, state: HoldState, within_s: float, offered: list[bytes]
    ) -> RegionFacts | None:
        """What a region knows of a hold, as it counts here; ``None`` if it does not answer.

        Adds the signed result that the region reports to ``offered``.
        """
        if region == self._me.region:
            return await self._regions.facts_here(state.hold.id)
        reply = await self._regions.facts(region, state.hold.id, within_s)
        if reply is None:
            return None
        offered.append(reply.result)
        judged_alike = reply.lifted == state.lifted and reply.roster >= self._me.rosters.version
        return RegionFacts(
            reply.durable_at if judged_alike else 0,
            reply.incarnations,
            self._timing.surely_s(reply.held_ms),
            self._timing.surely_s(reply.watched_ms),
            reply.reached,
            settled=reply.settled,
            roster=self._me.rosters.version,
        )

    async def _incarnations_of(self, region: str, within_s: float) -> list[Incarnation]:
        if region == self._me.region:
            return await self._switch.incarnations()
        reply = await self._regions.facts(region, FIRST, within_s)
        return [] if reply is None else reply.incarnations


def _bare(state: HoldState) -> HoldStatus:
    """The status of a hold before anything is known about where it is stored."""
    return HoldStatus(
        hold_id=state.hold.id,
        scope=state.hold.scope,
        target=state.hold.target,
        cause=state.hold.cause,
        lifted=False,
        complete=False,
        regions=[],
        incarnations=[],
    )
