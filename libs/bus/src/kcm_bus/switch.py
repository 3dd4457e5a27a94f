"""The kill switch of one instance: two ways in, one set of holds, purge before anything else.

A hold or lift arrives by broadcast (fast, across regions, not stored) or through the region's
control stream (durable, replayed from the start of every boot). In the callback, before any await:
verify, join, raise generations, purge. Then, in tasks: a receipt; for a Core, the region's stream
until it is acknowledged, so that an issuer that dies loses nothing; audit.

What cannot be verified is ignored and recorded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Final

from kcm_control.holds import HoldRecord
from kcm_control.revocation import Revocations
from kcm_schemas import limits, subjects
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import Boot, Lease, Receipt
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind
from kcm_trust.verify import Untrusted, VerifiedHold, VerifiedLift
from nats.aio.msg import Msg

from kcm_bus.clock import Clock, Randomness
from kcm_bus.connection import Connection
from kcm_bus.emitting import Emit
from kcm_bus.membership import Membership
from kcm_bus.refusals import Refusals
from kcm_bus.streams import Entry, Follower, last, put

log = logging.getLogger(__name__)

LEASE_EVERY_S: Final = 3.0
"""Seconds between a boot's lease records."""

LEASE_TTL: Final = "60s"
"""How long a lease record stays on record after its boot stopped renewing it."""

RETRY_S: Final = 0.25
"""Seconds between attempts to make a hold durable."""


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
        self._boots: dict[bytes, Boot] = {}
        self.durable: dict[bytes, int] = {}
        """Stream sequence at which this region's stream first acknowledged a hold, by id."""
        self._durable_state: dict[bytes, bytes] = {}
        self._follower: Final = Follower(
            region_bus,
            subjects.CONTROL_STREAM,
            subjects.control_all(membership.region),
            self._on_entry,
            clock,
        )

    async def start(self) -> None:
        """Listen, then catch up with everything the region ever held, then go on record.

        In this order no hold falls between: what is broadcast while the stream is replayed is
        heard.
        """
        await self._control_bus.subscribe(subjects.broadcast_holds(), self._on_broadcast)
        await self._follower.start()
        await self._renew()
        self._spawn(self._keep_on_record())

    async def close(self) -> None:
        """Stop listening, and say that this boot holds no key any more."""
        self._closing = True
        for task in list(self._tasks):
            task.cancel()
        try:
            await self._renew(ended=True)
        except KcmError:
            log.warning("the end of this boot could not be put on record; it will expire")
        await self._follower.close()

    def is_durable(self, record: HoldRecord) -> bool:
        """Whether this region's stream has acknowledged exactly this state of the hold."""
        return self._durable_state.get(record.hold.id) == record.message

    async def boots(self) -> tuple[int, list[Boot]]:
        """The region's boots on record, and the stream position at which that is true.

        Fresh: an own record is written first, and read back behind everything before it.
        """
        position = await self._renew()
        await self._follower.reached(position)
        return position, list(self._boots.values())

    def learn(self, raw: bytes) -> HoldRecord:
        """Take a hold or lift that came by whatever way; raises ``Untrusted``.

        Purges before it returns; what else is to be done goes on in tasks.
        """
        record = to_record(self._me.verifier.hold_or_lift(raw))
        started = self._clock.elapsed()
        learned = self._revocations.learn(record)
        dropped = sum(self._purge(tenant) for tenant in learned.purge)
        spent = self._clock.elapsed() - started
        hold = record.hold
        if learned.changed:
            self._record(record, learned.purge, dropped)
            if self._me.role is Role.CORE:
                self._spawn(self._make_durable(hold.id))
        if not record.lifted and (learned.changed or hold.id not in self._receipts):
            self._receipts[hold.id] = Receipt(
                hold_id=hold.id,
                instance=self._me.name,
                boot=self._me.boot,
                role=self._me.role,
                region=self._me.region,
                keys=dropped,
                purge_us=int(spent * 1e6),
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
            self._spawn(self._send_receipt(record.hold.id))

    def _on_entry(self, entry: Entry) -> None:
        match subjects.control_noun(entry.subject):
            case "hold":
                self._on_hold(entry)
            case "lease":
                self._on_lease(entry)

    def _on_lease(self, entry: Entry) -> None:
        if not entry.data:
            self._boots.pop(subjects.control_boot(entry.subject), None)  # it expired
            return
        try:
            lease = self._me.verifier.lease(entry.data)
        except Untrusted as error:
            self._refusals.record(error)
            return
        if lease.ended:
            self._boots.pop(lease.boot, None)
            return
        self._boots[lease.boot] = Boot(
            instance=lease.instance,
            boot=lease.boot,
            role=lease.role,
            first=lease.first or entry.sequence,
            latest=entry.sequence,
        )

    def _on_hold(self, entry: Entry) -> None:
        try:
            record = self.learn(entry.data)
        except Untrusted as error:
            self._refusals.record(error)
            return
        known = self._revocations.holds.get(record.hold.id)
        if known is None or known.message == entry.data:
            self._note_durable(known or record, entry.sequence)
        else:
            # The stream went back to an earlier state of this hold: write the join again.
            self._spawn(self._make_durable(record.hold.id))
        if not record.lifted:
            self._spawn(self._send_receipt(record.hold.id))

    async def _send_receipt(self, hold_id: bytes) -> None:
        receipt = self._receipts.get(hold_id)
        if receipt is None:
            return
        body = encode(self._me.identity.sign(Kind.RECEIPT, receipt))
        try:
            await self._control_bus.publish(subjects.receipt(self._me.region, hold_id), body)
        except KcmError:
            log.warning("a receipt could not be sent; it is sent again on request")

    async def _make_durable(self, hold_id: bytes) -> None:
        """Write the joined state of a hold to the region's stream until it is acknowledged."""
        while not self._closing:
            known = self._revocations.holds.get(hold_id)
            if known is None:
                return
            subject = subjects.control_hold(self._me.region, known.hold.scope, hold_id)
            try:
                stored = await last(self._region_bus, subjects.CONTROL_STREAM, subject)
                if stored is not None and stored.data == known.message:
                    self._note_durable(known, stored.sequence)
                    return
                if stored is not None:
                    self._take_stored(stored)
                    if self._revocations.holds.get(hold_id) != known:
                        continue
                sequence = await put(
                    self._region_bus,
                    subject,
                    known.message,
                    expected=stored.sequence if stored else 0,
                )
            except KcmError as error:
                if error.code is not Code.CONFLICT:
                    await asyncio.sleep(RETRY_S)
                continue
            self._note_durable(known, sequence)
            self._emit("hold.durable", detail=hold_id.hex())
            return

    def _note_durable(self, record: HoldRecord, sequence: int) -> None:
        self._durable_state[record.hold.id] = record.message
        self.durable.setdefault(record.hold.id, sequence)

    def _take_stored(self, stored: Entry) -> None:
        try:
            self.learn(stored.data)
        except Untrusted as error:
            self._refusals.record(error)

    async def _keep_on_record(self) -> None:
        # A flag and not only cancellation: the client library may swallow that.
        while not self._closing:
            await asyncio.sleep(LEASE_EVERY_S)
            try:
                await self._renew()
            except KcmError as error:
                log.warning("lease record not acknowledged: %s", error.code.value)

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
        sequence = await put(self._region_bus, subject, body, ttl=LEASE_TTL)
        self._first = self._first or sequence
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
