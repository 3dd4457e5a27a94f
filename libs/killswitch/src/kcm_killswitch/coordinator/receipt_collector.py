"""The receipts of everybody for every hold: collected as they come, read when somebody asks.

Everybody hears everybody's receipts, and few are ever asked for them. So what comes waits a moment
and is bounded: in number, by source, and in holds.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from kcm_runtime.audit.port import Emit
from kcm_runtime.audit.rejection_log import RejectionLog
from kcm_runtime.clock import Clock
from kcm_runtime.instance import InstanceContext
from kcm_runtime.nats.ports import Arrived, Messages
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
"""Holds whose receipts are kept in memory: older ones are asked for again when needed."""

UNREAD_MAX: Final = 256
"""Receipts that wait to be read: reading them takes some 50 ms."""

LARGE_MAX: Final = 8
"""Messages larger than a receipt that wait: results of finished kills, 5 MiB at most."""

REACHED_MAX: Final = 64
"""Different tenants' records that one incarnation may say to have reached for one hold."""

READ_S: Final = 0.1
"""Seconds for which they wait, when nobody asks."""


class Receipts:
    """What incarnations said of holds, by hold and incarnation."""

    def __init__(
        self,
        membership: InstanceContext,
        bus: Messages,
        clock: Clock,
        emit: Emit,
        on_result: Callable[[bytes, str], bool],
    ) -> None:
        """``on_result`` takes results, which come the same way, and the region that sent them.

        It says whether one is new, and raises ``Untrusted``.
        """
        self._me: Final = membership
        self._bus: Final = bus
        self._clock: Final = clock
        self._arrivals: OrderedDict[bytes, dict[Key, Arrival]] = OrderedDict()
        self._heard: OrderedDict[bytes, float] = OrderedDict()
        """When each hold was noticed first."""
        self._unread: dict[bytes, tuple[str, float]] = {}
        self._on_result: Final = on_result
        self._budgets: Final = Budgets()
        self._refusals: Final = RejectionLog("receipts", emit)
        self._reading: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Collect them."""
        self._me.rosters.listen(lambda _: self.forget())
        await self._bus.subscribe(subjects.receipts(), self._on_receipt)

    def close(self) -> None:
        """Record what is only counted so far."""
        self._refusals.close()

    def placed(self, hold_id: bytes) -> None:
        """A hold is placed: receipts count from now."""
        self._note(self._heard, hold_id, self._clock.elapsed())

    def forget(self) -> None:
        """Another roster counts: a hold that was in force may have ended, and be so again.

        Whoever purged for it before may serve by now. Holds are told again when somebody asks, and
        everybody who purged says so once more.
        """
        self._unread.clear()
        self._arrivals.clear()

    def of(self, hold_id: bytes) -> Mapping[Key, Arrival]:
        """The receipts for a hold, as far as they were read."""
        return self._arrivals.get(hold_id, {})

    async def _on_receipt(self, message: Arrived) -> None:
        """Note that it came; it is read once the kill's own rush is over, or when somebody asks.

        Everybody hears everybody's receipts, at the very moment in which processors have purging to
        do, and few are ever asked for them.
        """
        if len(self._unread) >= UNREAD_MAX or self._too_much(message.data):
            self.read()
        source = subjects.speaker(message.subject)
        self._unread.setdefault(message.data, (source, self._clock.elapsed()))
        if self._reading is None:
            self._reading = asyncio.get_running_loop().call_later(READ_S, self.read)

    def _too_much(self, raw: bytes) -> bool:
        """Whether what waits has to be read before this is kept: it may be large."""
        large = STATEMENT_MAX[Kind.RECEIPT]
        return len(raw) > large and sum(len(one) > large for one in self._unread) >= LARGE_MAX

    def heard_at(self, hold_id: bytes) -> float:
        """When a hold was noticed first, or now: receipts count from then."""
        return self._heard.get(hold_id, self._clock.elapsed())

    def read(self) -> None:
        """Read what came, before somebody is told how a hold stands."""
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        unread, self._unread = self._unread, {}
        now = self._clock.elapsed()
        for raw, (source, moment) in unread.items():
            # What is over the budget of its source is lost: it is sent again when somebody asks.
            if self._budgets.left(source, now) and not self._read(raw, source, moment):
                self._budgets.failed(source, now)

    def _read(self, raw: bytes, source: str, moment: float) -> bool:
        """Read a receipt; whether it was believed, and is one that was not here yet."""
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
            # A receipt may have come before its hold did, and be read after it.
            after_ms = max(0, int((moment - since) * 1000))
            arrivals[key] = Arrival(receipt, after_ms, raw=raw)
        else:
            # The purge was told at first; now, or still not, the hold is on disk. Once it is, that
            # stays, whatever is repeated later; and so does whom the incarnation said to have
            # reached.
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
        """When something was noticed first."""
        since = moments.setdefault(key, now)
        while len(moments) > HOLDS_WATCHED_MAX:
            moments.popitem(last=False)
        return since


def _is_result(raw: bytes) -> bool:
    """Whether this says of itself that it is a result."""
    try:
        return read_signed(raw).kind is Kind.RESULT
    except KcmError:
        return False
