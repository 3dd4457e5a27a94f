"""The receipts of one incarnation: that it purged for a hold, and why its disk still lacks it.

A receipt is sent when a hold is learned, when the disk stores or refuses it, and whenever the hold
is received again. A lost receipt is therefore replaced without further action.
"""

from __future__ import annotations

import logging
from typing import Final

from kcm_runtime.host import Host
from kcm_runtime.logs import fields
from kcm_runtime.nats.ports import PubSub
from kcm_runtime.tasks import TaskSet
from kcm_schemas import subjects
from kcm_schemas.audit import EventType
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import PENDING
from kcm_schemas.signed import Kind

from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.replica.hold_applier import About, HoldApplier, about
from kcm_killswitch.replica.hold_store_port import HoldStore

log = logging.getLogger(__name__)


class ReceiptSender:
    """Signs and sends the receipts."""

    def __init__(
        self,
        host: Host,
        replica_state: ReplicaState,
        *,
        control_bus: PubSub,
        applier: HoldApplier,
        hold_store: HoldStore,
    ) -> None:
        self._me: Final = host.me
        self._bus: Final = control_bus
        self._revocations: Final = replica_state.revocations
        self._applier: Final = applier
        self._hold_store: Final = hold_store
        self._emit: Final = host.emit
        self._tasks: Final = TaskSet()
        self._sending: set[bytes] = set()
        self._answered: set[bytes] = set()
        self._unkept: set[bytes] = set()
        """Holds that a receipt reported as not stored on disk."""

    @property
    def unsent(self) -> int:
        """The number of receipts that are being sent."""
        return len(self._tasks)

    def close(self) -> None:
        """Stop sending."""
        self._tasks.close()

    def answer(self, hold_id: bytes) -> None:
        """Send a receipt, one for any number of requests that arrive together."""
        if self._applier.receipt(hold_id) is not None and hold_id not in self._sending:
            self._sending.add(hold_id)
            self._answered.add(hold_id)
            self._tasks.spawn(self._send(hold_id))

    def answer_once(self, hold_id: bytes) -> None:
        """Send a receipt unless one was sent; a repeated hold requests another one."""
        if hold_id not in self._answered:
            self.answer(hold_id)

    def forget(self, hold_id: bytes) -> None:
        """A hold is lifted, or a page ends it: if it is in force again, it needs a new receipt."""
        self._answered.discard(hold_id)

    def kept(self, hold_id: bytes) -> None:
        """The disk stored a hold or refused it: report that to the instances that wait for it."""
        state = self._revocations.holds.get(hold_id)
        named = About(hold=hold_id, target="", tenant=None) if state is None else about(state)
        trouble = self._hold_store.unkept.get(hold_id)
        if trouble is not None:
            self._unkept.add(hold_id)
            detail = f"{trouble.text} ({trouble.code})"
            self._emit(EventType.HOLD_UNKEPT, **named, code=Code.UNAVAILABLE, detail=detail)
        elif hold_id in self._unkept:
            self._unkept.discard(hold_id)
            self._emit(EventType.HOLD_KEPT, **named)
        if state is not None and not state.lifted:
            self.answer(hold_id)

    async def _send(self, hold_id: bytes) -> None:
        self._sending.discard(hold_id)
        receipt = self._applier.receipt(hold_id)
        if receipt is None:
            self._answered.discard(hold_id)
            return
        word = receipt.model_copy(update={"unkept": self.why_unkept(hold_id)})
        body = encode(self._me.identity.sign(Kind.RECEIPT, word))
        try:
            await self._bus.publish(subjects.receipt(self._me.region, hold_id), body)
        except KcmError as error:
            self._answered.discard(hold_id)
            log.warning(
                "a receipt could not be sent, it is sent again on request: %s",
                error.detail,
                extra=fields(hold=hold_id, instance=self._me.name, code=error.code.value),
            )

    def why_unkept(self, hold_id: bytes) -> str:
        """Why this incarnation would lose a hold in a power failure; empty if it would not."""
        state = self._revocations.holds.get(hold_id)
        if state is None or self._hold_store.kept(hold_id, state.message):
            return ""
        trouble = self._hold_store.unkept.get(hold_id)
        return PENDING if trouble is None else trouble.text
