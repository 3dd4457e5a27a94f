"""Placing, lifting and watching holds across regions.

A hold that an operator signed is learned (which purges this instance before anything else), told to
everybody, and written to this region's stream; the answer comes when that is acknowledged. Whether
it is *complete* is computed from what every region in scope says after the hold was durable there:
this region by reading its own stream behind an own fresh record, the others by a pull that a Core
there answers in the same way. Asking for the status tells the hold again, so that a lost broadcast
or a lost receipt mends itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import Final

from kcm_bus.clock import Clock, Randomness
from kcm_bus.connection import Connection
from kcm_bus.membership import Membership
from kcm_bus.serving import describe
from kcm_bus.switch import KillSwitch, to_record
from kcm_control.boots import BOOTS_PER_INSTANCE_MAX, Key
from kcm_control.completeness import Arrival, RegionFacts, hold_status
from kcm_control.holds import HoldRecord
from kcm_control.registry import Registry
from kcm_control.revocation import Revocations
from kcm_schemas import limits, subjects
from kcm_schemas.admin import BlastRadius, BootStatus, HoldList, HoldStatus, HoldView
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import Boot, PullReply, PullRequest, Scope
from kcm_schemas.signed import Kind
from kcm_trust.verify import Untrusted
from nats.aio.msg import Msg

log = logging.getLogger(__name__)

HOLDS_WATCHED_MAX: Final = 1024
"""Holds whose receipts are kept in memory: older ones are asked for again when needed."""

PULL_TIMEOUT_S: Final = 1.5
"""Seconds that another region gets to say what it knows."""

RECONCILE_EVERY_S: Final = 5.0
"""Seconds between questions to the other regions: a lost broadcast is mended within this."""

DURABLE_POLL_S: Final = 0.005
"""Seconds between looks whether a hold is acknowledged."""

PAGE_BYTES: Final = 384 * 1024
"""Bytes of holds in one answer to a pull: with the boots on record it stays below the bound of a
message."""

PAGES_MAX: Final = 1024
"""Pages that are asked for: another region's word how many there are is bounded."""

PULLS_IN_FLIGHT_MAX: Final = 16
"""Pulls of other regions answered at once: each costs a write to the region's stream, and more are
asked again."""

NO_HOLD: Final = bytes(limits.ID_SIZE)
"""The hold id of a pull that asks for none."""


class Kills:
    """The Core's side of the kill switch's commands."""

    def __init__(
        self,
        *,
        membership: Membership,
        control_bus: Connection,
        registry: Registry,
        revocations: Revocations,
        switch: KillSwitch,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._me: Final = membership
        self._bus: Final = control_bus
        self._registry: Final = registry
        self._revocations: Final = revocations
        self._switch: Final = switch
        self._clock: Final = clock
        self._random: Final = randomness
        self._receipts: OrderedDict[bytes, dict[Key, Arrival]] = OrderedDict()
        self._heard: OrderedDict[bytes, float] = OrderedDict()
        self._closing = False
        self._reconciling: asyncio.Task[None] | None = None
        self._pulls: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Collect receipts, answer other regions, and learn what they hold."""
        await self._bus.subscribe(subjects.receipts(), self._on_receipt)
        await self._bus.subscribe(
            subjects.pull(self._me.region), self._on_pull, queue=f"core-{self._me.region}"
        )
        await self._learn_from_others()
        self._reconciling = asyncio.get_running_loop().create_task(self._reconcile())

    async def close(self) -> None:
        """Stop asking other regions."""
        self._closing = True
        for task in (self._reconciling, *self._pulls):
            if task is not None:
                task.cancel()

    async def place(self, raw: bytes, deadline_ms: int) -> HoldStatus:
        """Take a signed hold or lift, tell everybody, and wait until this region has it durable."""
        record = self._believe(raw)
        self._note(record.hold.id, self._clock.elapsed())
        self._switch.learn(raw)
        try:
            await self._switch.tell(raw)
        except KcmError as error:
            log.warning("a hold could not be broadcast: %s", error.code.value)
        known = self._known(record.hold.id)
        while not self._switch.durable_at(known):
            if self._clock.unix_ms() >= deadline_ms:
                raise KcmError(Code.UNAVAILABLE, "the hold is in force here, but not yet durable")
            await asyncio.sleep(DURABLE_POLL_S)
            known = self._known(record.hold.id)
        status = await self.status(record.hold.id)
        while known.lifted and not _durable(status) and self._clock.unix_ms() < deadline_ms:
            # A lift is worth telling when every region has it; a hold's progress is asked for.
            await asyncio.sleep(DURABLE_POLL_S)
            status = await self.status(record.hold.id)
        return status

    async def status(self, hold_id: bytes) -> HoldStatus:
        """How far a hold has come, asked anew of every region in scope."""
        record = self._known(hold_id)
        await self._tell_again(record)
        scope = self._regions_of(record.hold.scope, record.hold.target)
        facts = await asyncio.gather(*(self._facts(region, record) for region in scope))
        arrivals = self._receipts.get(hold_id, {})
        return hold_status(record, dict(zip(scope, facts, strict=True)), arrivals)

    async def preview(self, scope: Scope, target: str) -> BlastRadius:
        """What a hold would reach. Nothing is changed."""
        tenants = sorted(self._revocations.reach(scope, target))
        known = [name for name in tenants if self._registry.tenant(name) is not None]
        regions = self._regions_of(scope, target)
        facts = await asyncio.gather(*(self._boots_of(region) for region in regions))
        boots = [
            BootStatus(
                instance=boot.instance,
                boot=boot.boot,
                role=boot.role,
                region=region,
                how="waiting",
                keys=0,
                purge_us=0,
                after_ms=0,
            )
            for region, found in zip(regions, facts, strict=True)
            for boot in found
        ]
        services = sum(len(self._registry.services(name)) for name in known)
        return BlastRadius(tenants=known, services=services, regions=regions, boots=boots)

    def listing(self) -> HoldList:
        """Every hold, lifted ones too."""
        views = [
            HoldView(
                hold_id=record.hold.id,
                scope=record.hold.scope,
                target=record.hold.target,
                cause=record.hold.cause,
                origin=record.hold.origin,
                issuer=record.issuer,
                issued_ms=record.hold.issued_ms,
                reason=record.hold.reason,
                lifted=record.lifted,
                raw=record.raw,
            )
            for record in self._revocations.holds
        ]
        return HoldList(holds=sorted(views, key=lambda view: (view.issued_ms, view.hold_id)))

    async def _reconcile(self) -> None:
        while not self._closing:
            await asyncio.sleep(RECONCILE_EVERY_S)
            try:
                await self._learn_from_others()
            except Exception as error:  # noqa: BLE001 - who stops asking misses what was lost
                log.warning("other regions could not be asked: %s", describe(error))

    async def _learn_from_others(self) -> None:
        """Learn every hold of every region that answers: what was broadcast may have been lost."""
        others = [region for region in self._me.verifier.regions if region != self._me.region]
        await asyncio.gather(*(self._learn_from(region) for region in others))

    async def _learn_from(self, region: str) -> None:
        page, pages = 0, 1
        while page < pages:
            reply = await self._pull(region, NO_HOLD, page)
            if reply is None:
                return
            for raw in reply.holds:
                try:
                    self._switch.learn(raw)
                except Untrusted as error:
                    log.warning("a hold of region %s was not believed: %s", region, error)
            page, pages = page + 1, min(reply.pages, PAGES_MAX)

    def _believe(self, raw: bytes) -> HoldRecord:
        try:
            return to_record(self._me.verifier.hold_or_lift(raw))
        except Untrusted as error:
            raise KcmError(Code.FORBIDDEN, str(error)) from None

    def _known(self, hold_id: bytes) -> HoldRecord:
        record = self._revocations.holds.get(hold_id)
        if record is None:
            raise KcmError(Code.MALFORMED, "no such hold is known here")
        return record

    def _regions_of(self, scope: Scope, target: str) -> list[str]:
        """The regions of the tenant that a hold names; all for a link and for a tenant not known.

        A link may open roots of tenants in other regions, whose records this region never sees.
        """
        tenant = self._registry.tenant(target) if scope == "tenant" else None
        known = set(tenant.regions if tenant is not None else ()) & set(self._me.verifier.regions)
        return sorted(known or self._me.verifier.regions)

    async def _tell_again(self, record: HoldRecord) -> None:
        try:
            await self._switch.tell(record.message)
        except KcmError as error:
            log.warning("a hold could not be broadcast again: %s", error.code.value)

    async def _facts(self, region: str, record: HoldRecord) -> RegionFacts | None:
        if region == self._me.region:
            durable_at, _, boots = await self._facts_here(record)
            return RegionFacts(durable_at, boots)
        reply = await self._pull(region, record.hold.id)
        if reply is None:
            return None
        same = record.message in reply.holds
        return RegionFacts(reply.durable_at if same else 0, reply.boots)

    async def _facts_here(self, record: HoldRecord | None) -> tuple[int, int, list[Boot]]:
        """Where a hold is durable here, and position and boots that were read *after* it was.

        The other way round, a boot that began between the two would be missing, and the kill
        complete without it.
        """
        before = self._switch.durable_at(record) if record is not None else 0
        position, boots = await self._switch.boots()
        after = self._switch.durable_at(record) if record is not None else 0
        return (before if before == after else 0), position, boots

    async def _boots_of(self, region: str) -> list[Boot]:
        if region == self._me.region:
            return (await self._switch.boots())[1]
        reply = await self._pull(region, NO_HOLD)
        return [] if reply is None else reply.boots

    async def _pull(self, region: str, hold_id: bytes, page: int = 0) -> PullReply | None:
        """Ask another region; ``None`` when it does not answer, or not in a way to be believed."""
        nonce = self._random.public(limits.ID_SIZE)
        request = PullRequest(region=self._me.region, nonce=nonce, page=page, hold_id=hold_id)
        body = encode(self._me.identity.sign(Kind.PULL, request))
        try:
            raw = await self._bus.request(subjects.pull(region), body, PULL_TIMEOUT_S)
            reply = self._me.verifier.pull_reply(raw)
        except (KcmError, Untrusted) as error:
            log.warning("region %s does not answer a pull: %s", region, error)
            return None
        asked = (region, nonce, page)
        return reply if (reply.region, reply.nonce, reply.page) == asked else None

    async def _on_pull(self, message: Msg) -> None:
        """Answer in a task: what it waits for must not keep later pulls waiting."""
        if not subjects.is_inbox(message.reply) or len(self._pulls) >= PULLS_IN_FLIGHT_MAX:
            return
        try:
            request = self._me.verifier.pull(message.data)
        except Untrusted as error:
            log.warning("a pull is not answered: %s", error)
            return
        task = asyncio.get_running_loop().create_task(self._answer(request, message.reply))
        self._pulls.add(task)
        task.add_done_callback(self._pulls.discard)

    async def _answer(self, request: PullRequest, reply_to: str) -> None:
        try:
            record = self._revocations.holds.get(request.hold_id)
            durable_at, position, boots = await self._facts_here(record)
            asked = [record.message] if record is not None else []
            others = [one.message for one in self._revocations.holds if one is not record]
            pages = in_pages(asked + others)
            reply = PullReply(
                region=self._me.region,
                nonce=request.nonce,
                page=request.page,
                pages=len(pages),
                position=position,
                durable_at=durable_at,
                holds=pages[request.page] if request.page < len(pages) else [],
                boots=boots,
            )
            body = encode(self._me.identity.sign(Kind.PULL_REPLY, reply))
            await self._bus.publish(reply_to, body)
        except KcmError as error:
            log.warning("a pull is not answered: %s", error)

    async def _on_receipt(self, message: Msg) -> None:
        try:
            receipt = self._me.verifier.receipt(message.data)
        except Untrusted as error:
            log.warning("a receipt was not believed: %s", error)
            return
        now = self._clock.elapsed()
        since = self._note(receipt.hold_id, now)
        arrivals = self._receipts.setdefault(receipt.hold_id, {})
        key = (receipt.instance, receipt.boot)
        if key not in arrivals:
            arrivals[key] = Arrival(receipt, int((now - since) * 1000))
        own = [other for other in arrivals if other[0] == receipt.instance]
        for oldest in own[:-BOOTS_PER_INSTANCE_MAX]:
            del arrivals[oldest]
        while len(self._receipts) > HOLDS_WATCHED_MAX:
            self._receipts.popitem(last=False)

    def _note(self, hold_id: bytes, now: float) -> float:
        """When this Core first heard of a hold."""
        since = self._heard.setdefault(hold_id, now)
        while len(self._heard) > HOLDS_WATCHED_MAX:
            self._heard.popitem(last=False)
        return since


def in_pages(holds: list[bytes]) -> list[list[bytes]]:
    """Holds in pages of at most ``PAGE_BYTES``; at least one page."""
    pages, size = [list[bytes]()], 0
    for hold in holds:
        if pages[-1] and size + len(hold) > PAGE_BYTES:
            pages.append([])
            size = 0
        pages[-1].append(hold)
        size += len(hold)
    return pages


def _durable(status: HoldStatus) -> bool:
    return all(region.durable_at for region in status.regions)
