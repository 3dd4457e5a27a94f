"""Every hold that reaches one incarnation, by any way: applied, answered, replicated, paged.

``HoldApplier`` joins a hold with what is known and purges. ``ReceiptSender`` reports that,
``HoldReplicator`` has a Core write the hold to the region's stream, and ``LiftPages`` ends holds in
great number. This module connects them: what one of them finds out, the others have to do.

A statement that is not valid is refused and recorded. If it replaced a known hold in the stream, a
Core writes that hold again, because incarnations learn from the stream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kcm_runtime.audit.rejection_log import RejectionLog
from kcm_runtime.changes import Changes
from kcm_runtime.host import Host
from kcm_runtime.nats.ports import Entry, PubSub, StreamLog
from kcm_schemas import subjects
from kcm_schemas.audit import EventType
from kcm_trust.verify import Untrusted

from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.log_position import LogPosition
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.replica.entry_expiry import EntryExpiry
from kcm_killswitch.replica.hold_applier import HoldApplier, about, said
from kcm_killswitch.replica.hold_replicator import HoldReplicator
from kcm_killswitch.replica.hold_store_port import HoldStore
from kcm_killswitch.replica.lift_page_keeper import LiftPages, is_page
from kcm_killswitch.replica.receipts import ReceiptSender


class HoldKeeper:
    """The parts that process holds, and what each of them has to know of the others."""

    def __init__(
        self,
        host: Host,
        replica_state: ReplicaState,
        *,
        stream: StreamLog,
        hold_store: HoldStore,
        control_bus: PubSub,
        purge: Callable[[str], int],
        refusals: RejectionLog,
        changes: Changes,
    ) -> None:
        self._me: Final = host.me
        self._emit: Final = host.emit
        self._revocations: Final = replica_state.revocations
        self._freshness: Final = replica_state.freshness
        self._hold_store: Final = hold_store
        self._refusals: Final = refusals
        self._changes: Final = changes
        self._recalling = False
        self._issuing = False
        self.applier: Final = HoldApplier(
            host, replica_state, purge=purge, changed=self._changed, refused=refusals.record
        )
        self.receipts: Final = ReceiptSender(
            host,
            replica_state,
            control_bus=control_bus,
            applier=self.applier,
            hold_store=hold_store,
        )
        self.replicator: Final = HoldReplicator(
            host,
            replica_state,
            stream=stream,
            learn=self.applier.learn,
            refusals=refusals,
            changes=changes,
        )
        self.expiry: Final = EntryExpiry(host, stream=stream, done=self._expired)
        self.pages: Final = LiftPages(
            host,
            replica_state,
            stream=stream,
            hold_store=hold_store,
            learn=self.applier.learn,
            examine=self.applier.examine,
            ended=self._ended,
            expire=self.expiry.clear,
        )
        hold_store.listen(self._on_disk)

    def recall(self) -> None:
        """Apply the stored holds; raises ``ConfigError`` if they cannot be read."""
        self._recalling = True
        for raw in self._hold_store.recall():
            try:
                self.learn(raw)
            except Untrusted as error:
                self._refusals.record(error)
        self._recalling = False

    def start(self) -> None:
        """The stream was replayed: from now on, changes are events, and a Core writes holds."""
        self.applier.live = True
        self.replicator.mend()
        self.pages.mend()

    def close(self) -> None:
        """Stop writing and sending."""
        self.replicator.close()
        self.expiry.close()
        self.pages.close()
        self.receipts.close()
        self._hold_store.listen(_ignore)

    def learn(self, raw: bytes) -> bytes:
        """Apply a hold, a lift or a page of lifts; returns its id or key. Raises ``Untrusted``."""
        if is_page(raw):
            return self.pages.take(raw)
        return self.applier.learn(raw).hold.id

    def issue(self, state: HoldState) -> None:
        """Apply a verified order: purge first, then write it to the stream at once.

        An order is one audit event, even if its hold arrived earlier by another way or the operator
        repeats an order that got no answer.
        """
        known = self._revocations.holds.get(state.hold.id)
        self._issuing = True
        try:
            self.applier.apply(state)
        finally:
            self._issuing = False
        news = known is None or (state.lifted and not known.lifted)
        if self.applier.ordered(state) or news:
            self._ordered(state)

    def heard(self, raw: bytes) -> bool:
        """Apply a broadcast hold or lift; returns whether it was valid and new."""
        before = self._revocations.holds
        try:
            state = self.applier.learn(raw)
        except Untrusted as error:
            self._refusals.record(error)
            return False
        if not state.lifted:
            self.receipts.answer(state.hold.id)
        return self._revocations.holds is not before

    def take(self, entry: Entry) -> None:
        """Process a hold's entry of the stream. Raises ``Untrusted``."""
        place = subjects.control_hold_id(entry.subject)
        if not entry.data:
            # The message expires: a page ends this hold, or the message could never be valid.
            self.replicator.lost(place, entry)
            return
        try:
            state = self.applier.learn(entry.data)
        except Untrusted:
            self.replicator.lost(place, entry)
            raise
        hold = state.hold
        if entry.subject != subjects.control_hold(self._me.region, hold.scope, hold.id):
            # The hold that belongs under this subject is not stored any more, nor is this one.
            self.replicator.lost(place, entry)
        else:
            self._freshness.held(LogPosition(entry.sequence, hold.id))
            if self._revocations.holds.ends(state):
                self.pages.superseded(entry, state)
            else:
                self._compare(entry, state)
        if not state.lifted:
            self.receipts.answer_once(hold.id)

    def take_again(self, entry: Entry) -> None:
        """Process an entry that was delivered before, in case it counts by another roster.

        Its position was noted at that time, or its subject has another entry by now.
        """
        noun = subjects.control_noun(entry.subject)
        if noun not in ("hold", "lifts") or not entry.data:
            return
        try:
            hold_id = self.learn(entry.data)
        except Untrusted:
            return  # no change
        if noun == "hold" and subjects.control_hold_id(entry.subject) == hold_id:
            self._freshness.held(LogPosition(entry.sequence, hold_id))

    def judge_again(self, names: frozenset[str]) -> None:
        """The roster or the endorsements changed: first purge for what is in force again.

        The disk keeps a lift that does not count any more: an endorsement may still list it.
        """
        judged = self.applier.judge_again(names)
        self.pages.judge_again(names)
        for hold_id in judged:
            state = self._revocations.holds.get(hold_id)
            if state is not None and not state.lifted:
                self.applier.learn(state.message)
                self.receipts.answer(hold_id)
            self.replicator.lost(hold_id)

    def forget(self, above: int = 0) -> None:
        """Entries of the stream above a sequence may be lost."""
        self.replicator.forget(above)
        self.pages.forget(above)

    def _compare(self, entry: Entry, state: HoldState) -> None:
        """Note where the stream has a hold, unless its state there is not the known one."""
        hold_id = state.hold.id
        known = self._revocations.holds.get(hold_id) or state
        if known.message == entry.data or known == state:
            self.replicator.note(known, entry.sequence)
            if known.message != entry.data:
                self.replicator.replace(hold_id)
        else:
            # The stream returned to an earlier state of this hold: write the join again.
            self.replicator.lost(hold_id, entry)

    def _changed(self, hold_id: bytes) -> None:
        """A new state was learned and purged for: first send a receipt, then make it durable."""
        self._changes.notify()
        state = self._revocations.holds.get(hold_id)
        if state is None or self._recalling:
            return
        if state.lifted:
            self.receipts.forget(hold_id)
        else:
            self.receipts.answer(hold_id)
        self.replicator.keep(hold_id, at_once=self._issuing)
        if not self._hold_store.kept(hold_id, state.message):
            self._hold_store.remember(hold_id, state.message)

    def _on_disk(self, hold_id: bytes) -> None:
        """The disk now has a hold, or its archive has a hold that a page ends."""
        self.receipts.kept(hold_id)
        if self._revocations.holds.get(hold_id) is None:
            self.pages.messages.archived(hold_id)

    def _ended(self, state: HoldState) -> int:
        """A page ends a hold; returns the sequence of the hold's message in the stream."""
        page = self.pages.ended_by(state)
        self.applier.forget(state, None if page is None else page.place.signer)
        self.receipts.forget(state.hold.id)
        return self.replicator.ended(state.hold.id)

    def _expired(self, _: int) -> None:
        self.pages.messages.sweep()

    def _ordered(self, state: HoldState) -> None:
        """Record who placed or lifted a hold, and why."""
        actor, reason = said(self._me, state)
        kind = EventType.HOLD_LIFTED if state.lifted else EventType.HOLD_PLACED
        self._emit(kind, **about(state), actor=actor, detail=reason)


def _ignore(_: object) -> None:
    """Ignore the argument: no callback is set."""
