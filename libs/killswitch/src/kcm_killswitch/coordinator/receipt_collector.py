"""The receipts of all instances for every hold: collected on arrival, read when they are needed.

Every instance receives the receipts of all others, and few of them are ever needed. So arrivals
wait for a moment, and are bounded in number, by source, and by holds.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from kcm_runtime.audit.rejection_log import RejectionLog
from kcm_runtime.host import Host
from kcm_runtime.nats.ports import Delivery, PubSub
from kcm_schemas import subjects
from kcm_schemas.codes import KcmError
from kcm_schemas.control import Receipt
from kcm_schemas.signed import STATEMENT_MAX, Kind, read_signed
from kcm_trust.verify import Untrusted

from kcm_killswitch.model.completeness import Arrival
from kcm_killswitch.model.incarnations import INCARNATIONS_PER_INSTANCE_MAX, Key
from kcm_killswitch.replica.verification_budget import Budgets

K = TypeVar("K")

HOLDS_WATCHED_MAX: Final = 1024
"""Holds whose receipts stay in memory; others come again when a hold is placed again."""

UNREAD_MAX: Final = 256
"""Maximum number of unread receipts; reading that many takes about 50 ms."""

LARGE_MAX: Final = 8
"""Maximum number of unread messages that are larger than a receipt.

They are results of finished kills: 5 MiB in total at most.
"""

REACHED_MAX: Final = 64
"""Maximum number of tenant sets that one incarnation may report as reached by one hold."""

READ_S: Final = 0.1
"""Seconds for which receipts stay unread when no caller asks for them."""


class ReceiptCollector:
    """What incarnations reported on holds, by hold and incarnation."""

    def __init__(
        self, host: Host, *, control_bus: PubSub, on_result: Callable[[bytes, str], bool]
    ) -> None:
        """``on_result`` takes results, which arrive the same way, and the region that sent them.

        It returns whether a result is new, and raises ``Untrusted``.
        """
        self._me: Final = host.me
        self._bus: Final = control_bus
        self._clock: Final = host.clock
        self._arrivals: OrderedDict[bytes, dict[Key, Arrival]] = OrderedDict()
        self._heard: OrderedDict[bytes, float] = OrderedDict()
        """When this Core first noticed each hold."""
        self._unread: dict[bytes, tuple[str, float]] = {}
        self._on_result: Final = on_result
        self._budgets: Final = Budgets()
        self._refusals: Final = RejectionLog("receipts", host.emit)
        self._reading: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Subscribe to receipts."""
        self._me.rosters.listen(lambda _: self.forget())
        await self._bus.subscribe(subjects.receipts(), self.receive)

    def close(self) -> None:
        """Emit the refusals that are only counted so far."""
        self._refusals.close()

    @property
    def unread(self) -> int:
        """The number of receipts that were received and not read yet."""
        return len(self._unread)

    def placed(self, hold_id: bytes) -> None:
        """A hold is placed: receipts count from now."""
        self._note(self._heard, hold_id, self._clock.elapsed())

    def forget(self) -> None:
        """Forget all receipts because the roster changed.

        Under another roster, a hold that was in force may have ended, and be in force again. An
        incarnation that purged for it before may serve by now. When the hold is placed again, every
        incarnation that purged sends its receipt once more.
        """
        self._unread.clear()
        self._arrivals.clear()

    def of(self, hold_id: bytes) -> Mapping[Key, Arrival]:
        """The receipts for a hold that were read so far."""
        return self._arrivals.get(hold_id, {})

    async def receive(self, message: Delivery) -> None:
        """Queue a receipt. It is read once the rush of the kill is over, or when a caller asks.

        Every instance receives the receipts of all others at the very moment when its processors
        have purging to do, and few of the receipts are ever needed.
        """
        if len(self._unread) >= UNREAD_MAX or self._too_much(message.data):
            self.read()
        source = subjects.speaker(message.subject)
        self._unread.setdefault(message.data, (source, self._clock.elapsed()))
        if self._reading is None:
            self._reading = asyncio.get_running_loop().call_later(READ_S, self.read)

    def _too_much(self, raw: bytes) -> bool:
        """Whether the queue has to be read before this large message can be queued."""
        large = STATEMENT_MAX[Kind.RECEIPT]
        return len(raw) > large and sum(len(one) > large for one in self._unread) >= LARGE_MAX

    def heard_at(self, hold_id: bytes) -> float:
        """When this Core first noticed a hold, or now if it has not: receipts count from then."""
        return self._heard.get(hold_id, self._clock.elapsed())

    def read(self) -> None:
        """Read the queue, before the status of a hold is computed."""
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        unread, self._unread = self._unread, {}
        now = self._clock.elapsed()
        for raw, (source, moment) in unread.items():
            # What exceeds the budget of its source is dropped; it comes again with the next order.
            if self._budgets.left(source, now) and not self._read(raw, source, moment):
                self._budgets.failed(source, now)

    def _read(self, raw: bytes, source: str, moment: float) -> bool:
        """Read a receipt; returns whether it was accepted and is new."""
        try:
            if _is_result(raw):
                return self._on_result(raw, source)
            receipt = self._me.verifier.receipt(raw)
            if receipt.region != source:
                raise Untrusted("a receipt in the name of another region")
        except Untrusted as error:
            self._refusals.record(error)
            return False
        key = (receipt.instance, receipt.incarnation)
        known = self._arrivals.get(receipt.hold_id, {}).get(key)
        self._take(receipt, raw, moment)
        return known is None or known.receipt != receipt

    def _take(self, receipt: Receipt, raw: bytes, moment: float) -> None:
        since = self._note(self._heard, receipt.hold_id, moment)
        arrivals = self._arrivals.setdefault(receipt.hold_id, {})
        key = (receipt.instance, receipt.incarnation)
        known = arrivals.get(key)
        if known is None:
            # A receipt may arrive before its hold, and be read after it.
            after_ms = max(0, int((moment - since) * 1000))
            arrivals[key] = Arrival(receipt, after_ms, raw=raw)
        else:
            # The first receipt reported the purge. This one says that the hold is on disk now, or
            # still is not. Once it is, that stays, whatever is repeated later. So do the tenants
            # that the incarnation reported as reached.
            said, word = (receipt, raw) if known.receipt.unkept else (known.receipt, known.raw)
            reached = frozenset({*known.reached, known.receipt.reached, receipt.reached})
            if len(reached) <= REACHED_MAX:
                arrivals[key] = Arrival(said, known.after_ms, reached, word)
        own = [other for other in arrivals if other[0] == receipt.instance]
        for oldest in own[:-INCARNATIONS_PER_INSTANCE_MAX]:
            del arrivals[oldest]
        while len(self._arrivals) > HOLDS_WATCHED_MAX:
            self._arrivals.popitem(last=False)

    @staticmethod
    def _note(moments: OrderedDict[K, float], key: K, now: float) -> float:
        """When ``key`` was first noticed."""
        since = moments.setdefault(key, now)
        while len(moments) > HOLDS_WATCHED_MAX:
            moments.popitem(last=False)
        return since


def _is_result(raw: bytes) -> bool:
    """Whether this message claims to be a result."""
    try:
        return read_signed(raw).kind is Kind.RESULT
    except KcmError:
        return False
