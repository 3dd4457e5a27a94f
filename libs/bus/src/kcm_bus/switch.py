"""The kill switch of one instance: two ways in, one set of holds, purge before anything else.

A hold or lift arrives by broadcast (fast, across regions, not stored) or through the region's
control stream (durable, replayed from the start of every boot). In the callback, before any await:
verify, join, raise generations, purge. Then, in tasks: a receipt; for a Core, the region's stream
until it is acknowledged, so that an issuer that dies loses nothing; audit.

What cannot be verified is ignored and recorded. Where it lies over a hold that is known, a Core
writes that hold again: the stream is what a boot learns from.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Final

from kcm_control.boots import BootRecords
from kcm_control.holds import HoldRecord
from kcm_control.revocation import Revocations
from kcm_schemas import limits, subjects
from kcm_schemas.codec import encode
from kcm_schemas.codes import KcmError
from kcm_schemas.control import Boot, Lease, Receipt
from kcm_schemas.signed import Kind
from kcm_trust.verify import Untrusted, VerifiedHold, VerifiedLift
from nats.aio.msg import Msg

from kcm_bus.clock import Clock, Randomness
from kcm_bus.connection import Connection
from kcm_bus.durable import DurableHolds
from kcm_bus.emitting import Emit
from kcm_bus.membership import Membership
from kcm_bus.purging import purge_each
from kcm_bus.refusals import Refusals
from kcm_bus.serving import describe
from kcm_bus.streams import Entry, Follower, put

log = logging.getLogger(__name__)

LEASE_EVERY_S: Final = 3.0
"""Seconds between a boot's lease records."""

LEASE_TTL: Final = "60s"
"""How long a lease record stays on record after its boot stopped renewing it."""

BEFORE_EVERYTHING: Final = 1
"""The first sequence of any stream: a boot that cannot say when it began has to send receipts."""

U32_MAX: Final = (1 << 32) - 1
"""The largest number that a receipt can carry."""


class KillSwitch:
    """Feeds ``Revocations`` from the bus, and calls ``purge(tenant) -> keys dropped``."""

    def __init__(
        self,
        *,
        membership: Membership,
        region_bus: Connection,
        control_bus: Connection,
        revocations: Revocations,
        purge: Callable[[str], int],
        emit: Emit,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._me: Final = membership
        self._region_bus: Final = region_bus
        self._control_bus: Final = control_bus
        self._revocations: Final = revocations
        self._purge: Final = purge
        self._emit: Final = emit
        self._clock: Final = clock
        self._randomness: Final = randomness
        self._tasks: set[asyncio.Task[None]] = set()
        self._receipts: dict[bytes, Receipt] = {}
        self._refusals: Final = Refusals("control", emit, clock)
        self._closing = False
        self._first = 0
        self._latest = 0
        self._boots: Final = BootRecords()
        self._unpurged: dict[bytes, tuple[str, ...]] = {}
        """Tenants whose purge failed, by hold: tried again whenever the hold is heard again."""
        self._sending: set[bytes] = set()
        self._durable: Final = DurableHolds(
            membership=membership,
            connection=region_bus,
            revocations=revocations,
            learn=self.learn,
            refusals=self._refusals,
            emit=emit,
        )
        self._follower: Final = Follower(
            region_bus,
            subjects.CONTROL_STREAM,
            subjects.control_all(membership.region),
            self._on_entry,
            clock,
            went_back=self._durable.forget,
        )

    async def start(self) -> None:
        """Listen, then catch up with everything the region ever held, then go on record.

        In this order no hold falls between: what is broadcast while the stream is replayed is
        heard.
        """
        await self._control_bus.subscribe(subjects.broadcast_holds(), self._on_broadcast)
        await self._follower.start()
        # The first record cannot name its own sequence; the second one does.
        await self._renew()
        await self._renew()
        self._spawn(self._keep_on_record())

    async def close(self) -> None:
        """Stop listening, and say that this boot holds no key any more."""
        self._closing = True
        self._durable.close()
        for task in list(self._tasks):
            task.cancel()
        try:
            await self._renew(ended=True)
        except KcmError:
            log.warning("the end of this boot could not be put on record; it will expire")
        await self._follower.close()

    def durable_at(self, record: HoldRecord) -> int:
        """The stream sequence at which this region has exactly this state; 0 when it has not."""
        return self._durable.place(record)

    async def boots(self) -> tuple[int, list[Boot]]:
        """The region's boots on record, and the stream position at which that is true.

        Fresh: an own record is written first, and read back behind everything before it. Raises
        ``unavailable``.
        """
        position = await self._renew()
        await self._follower.reached(position)
        return position, self._boots.on_record(self._clock.elapsed())

    def learn(self, raw: bytes) -> HoldRecord:
        """Take a hold or lift that came by whatever way; raises ``Untrusted``.

        Purges before it returns; what else is to be done goes on in tasks.
        """
        record = to_record(self._me.verifier.hold_or_lift(raw))
        started = self._clock.elapsed()
        learned = self._revocations.learn(record)
        again = self._unpurged.pop(record.hold.id, ())
        dropped, failed = purge_each(self._purge, dict.fromkeys(learned.purge + again))
        spent = self._clock.elapsed() - started
        hold = record.hold
        if learned.changed:
            self._record(record, learned.purge, dropped)
            self._durable.keep(hold.id)
        if failed:
            self._receipts.pop(hold.id, None)  # this boot may have keys still: no receipt
            self._unpurged[hold.id] = failed
        elif not record.lifted and (learned.changed or hold.id not in self._receipts):
            self._receipts[hold.id] = Receipt(
                hold_id=hold.id,
                instance=self._me.name,
                boot=self._me.boot,
                role=self._me.role,
                region=self._me.region,
                keys=min(dropped, U32_MAX),
                purge_us=min(int(spent * 1e6), U32_MAX),
            )
        return record

    async def tell(self, raw: bytes) -> None:
        """Broadcast a hold or lift to every instance of every region."""
        record = to_record(self._me.verifier.hold_or_lift(raw))
        hold = record.hold
        subject = subjects.broadcast_hold(self._me.region, hold.scope, hold.id)
        await self._control_bus.publish(subject, raw)
        await self._control_bus.flush()

    async def _on_broadcast(self, message: Msg) -> None:
        try:
            record = self.learn(message.data)
        except Untrusted as error:
            self._refusals.record(error)
            return
        if not record.lifted:
            self._answer(record.hold.id)

    def _on_entry(self, entry: Entry) -> None:
        match subjects.control_noun(entry.subject):
            case "hold":
                self._on_hold(entry)
            case "lease":
                self._on_lease(entry)

    def _on_lease(self, entry: Entry) -> None:
        if not entry.data:
            return  # the broker says that a record expired; nobody signed that
        try:
            lease = self._me.verifier.lease(entry.data)
            if entry.subject != subjects.control_lease(lease.region, lease.instance, lease.boot):
                raise Untrusted("the lease record lies under another name")
        except Untrusted as error:
            self._refusals.record(error)
            return
        self._boots.take(lease, entry.sequence, self._clock.elapsed())

    def _on_hold(self, entry: Entry) -> None:
        try:
            record = self.learn(entry.data)
        except Untrusted as error:
            self._refusals.record(error)
            self._durable.lost(subjects.control_hold_id(entry.subject))
            return
        hold = record.hold
        if entry.subject != subjects.control_hold(self._me.region, hold.scope, hold.id):
            # Whatever has its place there is not stored any more, and this one is not either.
            self._durable.lost(subjects.control_hold_id(entry.subject))
        else:
            known = self._revocations.holds.get(hold.id) or record
            if known.message == entry.data:
                self._durable.note(known, entry.sequence)
            else:
                # The stream went back to an earlier state of this hold: write the join again.
                self._durable.lost(hold.id)
        if not record.lifted:
            self._answer(hold.id)

    def _answer(self, hold_id: bytes) -> None:
        """Send a receipt, once for any number of questions that came together."""
        if hold_id in self._receipts and hold_id not in self._sending:
            self._sending.add(hold_id)
            self._spawn(self._send_receipt(hold_id))

    async def _send_receipt(self, hold_id: bytes) -> None:
        self._sending.discard(hold_id)
        receipt = self._receipts.get(hold_id)
        if receipt is None:
            return
        body = encode(self._me.identity.sign(Kind.RECEIPT, receipt))
        try:
            await self._control_bus.publish(subjects.receipt(self._me.region, hold_id), body)
        except KcmError:
            log.warning("a receipt could not be sent; it is sent again on request")

    async def _keep_on_record(self) -> None:
        # A flag and not only cancellation: the client library may swallow that.
        while not self._closing:
            await asyncio.sleep(LEASE_EVERY_S)
            try:
                await self._renew()
            except Exception as error:  # noqa: BLE001 - a boot that is not on record is forgotten
                log.warning("lease record not acknowledged: %s", describe(error))

    async def _renew(self, *, ended: bool = False) -> int:
        lease = Lease(
            instance=self._me.name,
            boot=self._me.boot,
            role=self._me.role,
            region=self._me.region,
            nonce=self._randomness.public(limits.ID_SIZE),
            first=self._first,
            ended=ended,
        )
        subject = subjects.control_lease(self._me.region, self._me.name, self._me.boot)
        body = encode(self._me.identity.sign(Kind.LEASE, lease))
        seen = self._latest
        sequence = await put(self._region_bus, subject, body, ttl=LEASE_TTL)
        if sequence <= seen:
            # The stream went back. What was its beginning there says nothing of the new one.
            self._first = BEFORE_EVERYTHING
        self._first = self._first or sequence
        self._latest = sequence
        return sequence

    def _record(self, record: HoldRecord, tenants: tuple[str, ...], dropped: int) -> None:
        hold = record.hold
        self._emit(
            "hold.lifted" if record.lifted else "hold.purged",
            actor=record.issuer,
            tenant=hold.target if hold.scope == "tenant" else None,
            count=dropped,
            detail=f"{hold.id.hex()} {hold.scope} {hold.target}: {len(tenants)} tenants",
        )

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def to_record(verified: VerifiedHold | VerifiedLift) -> HoldRecord:
    """A verified statement as a state of its hold."""
    match verified:
        case VerifiedHold():
            return HoldRecord(verified.hold, verified.issuer, verified.raw)
        case VerifiedLift():
            held = verified.held
            return HoldRecord(held.hold, held.issuer, held.raw, lift=verified.raw)
