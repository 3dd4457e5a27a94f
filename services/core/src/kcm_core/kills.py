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
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from heapq import merge
from itertools import islice, takewhile
from typing import Final, TypeVar

from kcm_bus.admission import Budgets
from kcm_bus.clock import Clock
from kcm_bus.emitting import Emit
from kcm_bus.learning import to_record
from kcm_bus.membership import Membership
from kcm_bus.ports import Arrived, Messages
from kcm_bus.refusals import Refusals
from kcm_bus.switch import KillSwitch
from kcm_control.boots import BOOTS_PER_INSTANCE_MAX, Key
from kcm_control.completeness import Arrival, Fenced, Reach, RegionFacts, hold_status
from kcm_control.holds import HoldRecord
from kcm_control.registry import Registry
from kcm_control.revocation import Revocations
from kcm_control.serving import fence_of
from kcm_control.timing import Timing
from kcm_schemas import limits, subjects
from kcm_schemas.admin import (
    BlastRadius,
    BootStatus,
    HoldMatches,
    HoldPage,
    HoldPageQuery,
    HoldStatus,
    HoldView,
    RegionStatus,
)
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import Boot, Receipt, Scope
from kcm_trust.statements import lifted
from kcm_trust.verify import Untrusted

from kcm_core.regions import FIRST, PULL_TIMEOUT_S, Regions

log = logging.getLogger(__name__)

K = TypeVar("K")

HOLDS_WATCHED_MAX: Final = 1024
"""Holds whose receipts are kept in memory: older ones are asked for again when needed."""

PAGE_BYTES: Final = 256 * 1024
"""Bytes of signed holds in one page of a list: a view has at most as much beside the statement, so
the answer stays below the bound of a message."""

ARCHIVED_MAX: Final = 32
"""Holds that pages end in one page of a list: each is verified again, some 0.3 ms."""

_LAST: Final = b"\xff" * limits.ID_SIZE

UNREAD_MAX: Final = 256
"""Receipts that wait to be read: reading them takes some 50 ms."""

REACHED_MAX: Final = 64
"""Different tenants' records that one boot may say to have reached for one hold."""

READ_S: Final = 0.1
"""Seconds for which they wait, when nobody asks."""

DURABLE_POLL_S: Final = 0.005
"""Seconds between looks whether a hold is acknowledged."""

PATIENCE_MIN_S: Final = 0.05
"""Seconds that other regions get at least, however little time an operator gives."""

SPREAD_POLL_S: Final = 0.02
"""Seconds between looks whether every region has a lift: each look asks all of them."""


class Kills:
    """The Core's side of the kill switch's commands."""

    def __init__(
        self,
        *,
        membership: Membership,
        control_bus: Messages,
        registry: Registry,
        revocations: Revocations,
        switch: KillSwitch,
        regions: Regions,
        timing: Timing,
        clock: Clock,
        emit: Emit,
    ) -> None:
        self._me: Final = membership
        self._bus: Final = control_bus
        self._registry: Final = registry
        self._revocations: Final = revocations
        self._switch: Final = switch
        self._regions: Final = regions
        self._timing: Final = timing
        self._clock: Final = clock
        self._receipts: OrderedDict[bytes, dict[Key, Arrival]] = OrderedDict()
        self._heard: OrderedDict[bytes, float] = OrderedDict()
        self._unread: dict[bytes, tuple[str, float]] = {}
        self._budgets: Final = Budgets()
        self._refusals: Final = Refusals("receipts", emit, clock)
        self._reading: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Collect receipts."""
        await self._bus.subscribe(subjects.receipts(), self._on_receipt)

    async def place(self, raw: bytes, deadline_ms: int) -> HoldStatus:
        """Take a signed hold or lift, tell everybody, and wait until this region has it durable."""
        believed = self._believe(raw)
        if self._revocations.holds.ends(believed):
            return self._paged(believed)
        hold_id = believed.hold.id
        self._note(self._heard, hold_id, self._clock.elapsed())
        self._switch.issue(raw)
        try:
            await self._switch.tell(raw)
        except KcmError as error:
            log.warning("a hold could not be broadcast: %s", error.code.value)
        while not self._switch.durable_at(hold_id):
            if self._clock.unix_ms() >= deadline_ms:
                why = self._switch.why_not_durable or "the stream does not acknowledge it"
                raise KcmError(
                    Code.UNAVAILABLE, f"the hold is in force here, but not yet durable: {why}"
                )
            await asyncio.sleep(DURABLE_POLL_S)
        # Half of the time that is left: a look takes its time where a region is cut off, and the
        # answer has to arrive while somebody waits for it.
        now_ms = self._clock.unix_ms()
        until_ms = now_ms + (deadline_ms - now_ms) // 2
        status = await self.status(hold_id, deadline_ms)
        while status.lifted and not status.complete and self._clock.unix_ms() < until_ms:
            # A lift is worth telling when every region has it; a hold's progress is asked for.
            await asyncio.sleep(SPREAD_POLL_S)
            status = await self.status(hold_id, deadline_ms)
        return status

    async def status(self, hold_id: bytes, deadline_ms: int | None = None) -> HoldStatus:
        """How far a hold has come, asked anew of every region in scope.

        A region that is cut off is waited for during half of the time that is left: what is known
        of the others has to be told while somebody waits for it.
        """
        if self._revocations.holds.get(hold_id) is None:
            for ended in await self._archived(hold_id.hex()):
                return self._paged(ended)
        record = self._known(hold_id)
        await self._tell_again(record)
        regions = self._regions_of(record.hold.scope, record.hold.target)
        within_s = self._patience_s(deadline_ms)
        facts = await asyncio.gather(*(self._facts(one, record, within_s) for one in regions))
        self._read_receipts()
        return hold_status(
            record,
            dict(zip(regions, facts, strict=True)),
            self._receipts.get(hold_id, {}),
            self._reach(record.hold.scope, record.hold.target),
            self._timing,
            self._retired,
        )

    async def preview(
        self, scope: Scope, target: str, deadline_ms: int | None = None
    ) -> BlastRadius:
        """What a hold would reach. Nothing is changed; regions are waited for as in ``status``."""
        tenants = sorted(self._revocations.held(scope, target))
        known = [name for name in tenants if self._registry.tenant(name) is not None]
        regions = self._regions_of(scope, target)
        within_s = self._patience_s(deadline_ms)
        facts = await asyncio.gather(*(self._boots_of(region, within_s) for region in regions))
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
                trouble="",
                retired=self._retired(boot.instance),
                left_ms=0,
            )
            for region, found in zip(regions, facts, strict=True)
            for boot in found
        ]
        services = sum(self._registry.service_count(name) for name in known)
        return BlastRadius(
            tenants=known[: limits.PAGE_ROWS_MAX],
            total=len(known),
            services=services,
            regions=regions,
            boots=boots,
        )

    async def page(self, query: HoldPageQuery) -> HoldPage:
        """Holds behind an id, as many as one answer takes."""
        known = self._revocations
        if not query.everything:
            return self._cut(known.in_force(query.after), frozenset(), more=False)
        # Of what pages end the archive has the text, and each is verified again: a few at a time.
        after = query.after
        while True:
            archived = await self._switch.lifts.archived(after, _LAST, ARCHIVED_MAX + 1)
            old = {one.hold.id: one for one in archived.records if one.hold.id > query.after}
            records = _through(archived.last or _LAST, known.holds.in_order(query.after))
            found = list(merge(old.values(), records, key=_id))
            if found or archived.last is None:
                return self._cut(found, old.keys(), more=archived.last is not None)
            after = archived.last  # none of these counts any more

    def _cut(
        self, records: Iterable[HoldRecord], ended: AbstractSet[bytes], *, more: bool
    ) -> HoldPage:
        """A page of these, of which some are ended by pages; ``more`` follow them in any case."""
        page: list[HoldView] = []
        size = 0
        for record in records:
            size += len(record.message)
            if page and (size > PAGE_BYTES or len(page) >= limits.HOLD_PAGE_MAX):
                return HoldPage(holds=page, more=True)
            page.append(self._ended_view(record) if record.hold.id in ended else _view(record))
        return HoldPage(holds=page, more=more)

    async def find(self, prefix: str) -> HoldMatches:
        """The hold whose id begins so, or two of several."""
        known = [_view(one) for one in islice(self._revocations.holds.beginning(prefix), 2)]
        known += [self._ended_view(record) for record in await self._archived(prefix)]
        return HoldMatches(holds=sorted(known, key=lambda view: view.hold_id)[:2])

    async def _archived(self, prefix: str) -> list[HoldRecord]:
        """Holds that a page ends, as far as this Core has their statements: two at most."""
        digits = 2 * limits.ID_SIZE
        least, most = (bytes.fromhex(prefix.ljust(digits, digit)) for digit in "0f")
        return (await self._switch.lifts.archived(least, most, 2)).records

    def _ended_view(self, record: HoldRecord) -> HoldView:
        view, page = _view(record), self._switch.lifts.ended_by(record)
        if record.lifted or page is None:
            return view
        told = {"lifted": True, "lifted_ms": page.issued_ms, "lifted_by": page.place.signer}
        return view.model_copy(update=told)

    def _paged(self, record: HoldRecord) -> HoldStatus:
        """How a hold stands that a page ends: lifted, in every region that has the page."""
        hold, sequence = record.hold, self._switch.lifts.stored_at(record)
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
            boots=[],
        )

    def _believe(self, raw: bytes) -> HoldRecord:
        try:
            return to_record(self._me.verifier.hold_or_lift(raw))
        except Untrusted as error:
            raise KcmError(Code.FORBIDDEN, str(error)) from None

    def _known(self, hold_id: bytes) -> HoldRecord:
        record = self._revocations.holds.get(hold_id)
        if record is None:
            raise KcmError(Code.UNKNOWN_HOLD, f"no hold {hold_id.hex()} is known in this region")
        return record

    def _regions_of(self, scope: Scope, target: str) -> list[str]:
        """Where a hold has to be known: the regions of a tenant that it names, else all of them.

        A link may open roots of tenants in other regions, whose records this region never sees.
        Nobody waits for a retired region.
        """
        everywhere = self._me.verifier.regions
        named = self._registry.regions_of(target) if scope == "tenant" else []
        wanted = set(named or everywhere) & set(everywhere)
        return sorted(region for region in wanted or everywhere if self._counts(region))

    def _retired(self, instance: str) -> bool:
        """Whether the roster says of an instance that it acts no more."""
        try:
            return self._me.verifier.instance(instance).retired is not None
        except Untrusted:
            return False

    def _counts(self, region: str) -> bool:
        return region == self._me.region or not self._revocations.retired(region)

    def _reach(self, scope: Scope, target: str) -> Reach:
        """Whom a hold reaches. Of a link, tenants may be known elsewhere alone."""
        if scope == "region":
            return Reach()
        known = [self._registry.tenant(name) for name in self._revocations.held(scope, target)]
        tenants = []
        for tenant in known:
            if tenant is not None:
                link = self._registry.link(tenant.link)
                regions = frozenset(region for region in tenant.regions if self._counts(region))
                model = link.model if link else "byok"
                retired = len(set(tenant.regions) - regions)
                tenants.append(Fenced(regions, fence_of(tenant, link), model, retired))
        return Reach(tenants, closed=scope == "tenant" and bool(tenants))

    async def _tell_again(self, record: HoldRecord) -> None:
        try:
            await self._switch.tell(record.message)
        except KcmError as error:
            log.warning("a hold could not be broadcast again: %s", error.code.value)

    def _patience_s(self, deadline_ms: int | None) -> float:
        """Seconds for which other regions are waited for."""
        if deadline_ms is None:
            return PULL_TIMEOUT_S
        left_ms = deadline_ms - self._clock.unix_ms()
        return min(PULL_TIMEOUT_S, max(PATIENCE_MIN_S, left_ms / 2000))

    async def _facts(self, region: str, record: HoldRecord, within_s: float) -> RegionFacts | None:
        if region == self._me.region:
            return await self._regions.facts_here(record.hold.id)
        reply = await self._regions.facts(region, record.hold.id, within_s)
        if reply is None:
            return None
        judged_alike = reply.lifted == record.lifted and reply.roster >= self._me.rosters.version
        return RegionFacts(
            reply.durable_at if judged_alike else 0,
            reply.boots,
            self._timing.surely_s(reply.held_ms),
            self._timing.surely_s(reply.watched_ms),
            reply.reached,
            settled=reply.settled,
            roster=self._me.rosters.version,
        )

    async def _boots_of(self, region: str, within_s: float) -> list[Boot]:
        if region == self._me.region:
            return await self._switch.boots()
        reply = await self._regions.facts(region, FIRST, within_s)
        return [] if reply is None else reply.boots

    async def _on_receipt(self, message: Arrived) -> None:
        """Note that it came; it is read once the kill's own rush is over, or when somebody asks.

        Everybody hears everybody's receipts, at the very moment in which processors have purging to
        do, and few are ever asked for them.
        """
        if len(self._unread) >= UNREAD_MAX:
            self._read_receipts()
        source = subjects.speaker(message.subject)
        self._unread.setdefault(message.data, (source, self._clock.elapsed()))
        if self._reading is None:
            self._reading = asyncio.get_running_loop().call_later(READ_S, self._read_receipts)

    def _read_receipts(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        unread, self._unread = self._unread, {}
        now = self._clock.elapsed()
        for raw, (source, moment) in unread.items():
            # What is over the budget of its source is lost: it is sent again when somebody asks.
            if self._budgets.left(source, now) and not self._read_receipt(raw, source, moment):
                self._budgets.failed(source, now)

    def _read_receipt(self, raw: bytes, source: str, moment: float) -> bool:
        """Read a receipt; whether it was believed, and is one that was not here yet."""
        try:
            receipt = self._me.verifier.receipt(raw)
            if receipt.region != source:
                raise Untrusted("a receipt in the name of another region")
        except Untrusted as error:
            self._refusals.record(error)
            return False
        key = (receipt.instance, receipt.boot)
        known = self._receipts.get(receipt.hold_id, {}).get(key)
        self._take(receipt, moment)
        return known is None or known.receipt != receipt

    def _take(self, receipt: Receipt, moment: float) -> None:
        since = self._note(self._heard, receipt.hold_id, moment)
        arrivals = self._receipts.setdefault(receipt.hold_id, {})
        key = (receipt.instance, receipt.boot)
        known = arrivals.get(key)
        if known is None:
            # A receipt may have come before its hold did, and be read after it.
            arrivals[key] = Arrival(receipt, max(0, int((moment - since) * 1000)))
        else:
            # The purge was told at first; now, or still not, the hold is on disk. Once it is, that
            # stays, whatever is repeated later; and so does whom the boot said to have reached.
            said = receipt if known.receipt.unkept else known.receipt
            reached = frozenset({*known.reached, known.receipt.reached, receipt.reached})
            if len(reached) <= REACHED_MAX:
                arrivals[key] = Arrival(said, known.after_ms, reached)
        own = [other for other in arrivals if other[0] == receipt.instance]
        for oldest in own[:-BOOTS_PER_INSTANCE_MAX]:
            del arrivals[oldest]
        while len(self._receipts) > HOLDS_WATCHED_MAX:
            self._receipts.popitem(last=False)

    @staticmethod
    def _note(moments: OrderedDict[K, float], key: K, now: float) -> float:
        """When something was noticed first."""
        since = moments.setdefault(key, now)
        while len(moments) > HOLDS_WATCHED_MAX:
            moments.popitem(last=False)
        return since


def _through(last: bytes, records: Iterable[HoldRecord]) -> Iterator[HoldRecord]:
    return takewhile(lambda one: one.hold.id <= last, records)


def _id(record: HoldRecord) -> bytes:
    return record.hold.id


def _view(record: HoldRecord) -> HoldView:
    lifted_ms, lifted_by, why = (0, "", "") if record.lift is None else lifted(record.lift)
    return HoldView(
        hold_id=record.hold.id,
        scope=record.hold.scope,
        target=record.hold.target,
        cause=record.hold.cause,
        origin=record.hold.origin,
        issuer=record.issuer,
        issued_ms=record.hold.issued_ms,
        reason=record.hold.reason,
        lifted=record.lifted,
        lifted_ms=lifted_ms,
        lifted_by=lifted_by,
        lift_reason=why,
        raw=record.raw,
    )
