"""Application of holds and lifts, from any source: verify, join and purge, before anything else.

All of this is one synchronous step. A purge that failed for a tenant is repeated whenever the hold
is received again, and until it succeeds there is no receipt: an incarnation that may still have
keys must not state that it has none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypedDict

from kcm_runtime.host import Host
from kcm_runtime.instance import InstanceContext
from kcm_schemas.audit import EventType
from kcm_schemas.control import Receipt
from kcm_schemas.text import counted
from kcm_trust.statements import lifted, signed_by
from kcm_trust.verify import Forged, Unlisted, Untrusted, VerifiedHold, VerifiedLift

from kcm_killswitch.model.hold_set import HoldState, join
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.replica.purge import purge_each

ASIDE_MAX: Final = 1024
"""Lifts of retired signers that are kept while no endorsement lists them; 32 MiB at most."""

U32_MAX: Final = (1 << 32) - 1
"""The largest number that a receipt can carry."""


class HoldApplier:
    """Applies every hold and lift that reaches this incarnation."""

    def __init__(
        self,
        host: Host,
        replica_state: ReplicaState,
        *,
        purge: Callable[[str], int],
        changed: Callable[[bytes], None],
        refused: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        """``changed`` is called with the id of a hold whose state is new.

        It is called after the purge, when ``receipt`` can answer. ``refused`` is called with the
        error of a statement that was verified but does not count.
        """
        self._me: Final = host.me
        self._revocations: Final = replica_state.revocations
        self._purge: Final = purge
        self._emit: Final = host.emit
        self._clock: Final = host.clock
        self._changed: Final = changed
        self._refused: Final = refused
        self._receipts: dict[bytes, Receipt] = {}
        self._unpurged: dict[bytes, tuple[str, ...]] = {}
        self._believed: dict[bytes, HoldState] = {}
        """The statements that give the state of each hold, keyed by their bytes. Each arrives at
        least twice, by broadcast and by the stream, and is verified once."""
        self.live = False
        """Whether a newly learned state is a new event. What an incarnation replays at its start
        happened before."""
        self._aside: dict[bytes, bytes] = {}
        """Lifts that no endorsement lists (yet), and the ids of their holds."""
        self._unordered: set[tuple[bytes, bool]] = set()
        """Holds (``False``) and lifts (``True``) that are new and have no order here yet."""

    def verify(self, raw: bytes) -> HoldState:
        """Verify a hold or a lift, unless the same bytes were verified; raises ``Untrusted``."""
        return self._believed.get(raw) or to_state(self._me.verifier.hold_or_lift(raw))

    def learn(self, raw: bytes) -> HoldState:
        """Verify a hold or lift and apply it. Raises ``Untrusted``.

        A lift that does not count still proves that its hold exists: that hold is applied.
        """
        return self.apply(self._believed.get(raw) or self._judge(raw))

    def apply(self, state: HoldState) -> HoldState:
        """Apply a verified state of a hold; purges before it returns."""
        if self._revocations.holds.ends(state):
            return state  # an earlier page already lifted it
        before = self._revocations.holds.get(state.hold.id)
        started = self._clock.elapsed()
        learned = self._revocations.learn(state)
        hold = state.hold
        again = self._unpurged.pop(hold.id, ())
        reached = b"" if state.lifted else self._revocations.reached(state)
        known = self._receipts.get(hold.id)
        if known is not None and not state.lifted and known.reached != reached:
            # The hold now reaches tenants that it did not reach before: purge again for it.
            again = (*again, *self._revocations.again(hold.id))
        dropped, failed = purge_each(self._purge, dict.fromkeys(learned.purge + again))
        spent = self._clock.elapsed() - started
        if failed or state.lifted:
            self._receipts.pop(hold.id, None)
        if failed:
            self._unpurged[hold.id] = failed
        elif not state.lifted and (learned.changed or known is None or known.reached != reached):
            self._receipts[hold.id] = Receipt(
                hold_id=hold.id,
                instance=self._me.name,
                incarnation=self._me.incarnation,
                role=self._me.role,
                region=self._me.region,
                keys=min(dropped, U32_MAX),
                purge_us=min(int(spent * 1e6), U32_MAX),
                unkept="",
                reached=reached,
            )
        if learned.ignored:
            self._refused(Untrusted("a key's hold on a link that is none of its region's"))
        if learned.changed:
            self._remember(state)
            self._changed(hold.id)
            now = self._revocations.holds.get(hold.id) or state
            self._tell(before, now, learned.purge, dropped)
        return state

    def ordered(self, state: HoldState) -> bool:
        """An operator ordered this state: whether it is new here and no order is recorded for it.

        The state may have arrived earlier: a party that has a signed hold can write it to the
        stream, or broadcast it, before the order arrives.
        """
        order = (state.hold.id, state.lifted)
        if order not in self._unordered:
            return False
        self._unordered.remove(order)
        return True

    def forget(self, state: HoldState, by: str | None) -> None:
        """Drop the local state of a hold that a page signed by ``by`` has ended."""
        self._receipts.pop(state.hold.id, None)
        self._unpurged.pop(state.hold.id, None)
        for raw in (state.raw, state.message):
            self._believed.pop(raw, None)
        self._unordered -= {(state.hold.id, False), (state.hold.id, True)}
        if self.live and not state.lifted:
            detail = "by a page of lifted holds"
            actor = None if by == self._me.name else by
            self._emit(EventType.HOLD_RELEASED, **about(state), actor=actor, detail=detail)

    def judge_again(self, names: frozenset[str]) -> list[bytes]:
        """Re-evaluate what these signers signed, after their roster entry or endorsements changed.

        If a lift does not count any more, its hold is in force again; a hold whose signer was
        removed ends. All purges are done when this returns. Returns the ids of the holds whose
        state changed.
        """
        changed = []
        for known in self._revocations.holds:
            if not signed_by(known.message, names) or self._lasts(known.message, names):
                continue
            now = self._judged(known)
            if now != known:
                self._stands(known, now)
                changed.append(known.hold.id)
        self._forget_of(names)
        return changed + self._lift_again()

    def _judged(self, known: HoldState) -> HoldState | None:
        """The state of a hold by the current roster: another signer may have signed it, too."""
        now: HoldState | None = None
        for raw in dict.fromkeys((known.message, known.raw)):
            try:
                form = self._judge(raw)
            except Untrusted:
                continue
            now = form if now is None else join(now, form)
        return now

    def _forget_of(self, names: frozenset[str]) -> None:
        """Forget the cached verdicts on what these signed, except statements that give a state."""
        for raw, state in list(self._believed.items()):
            stands = self._revocations.holds.get(state.hold.id)
            if (stands is None or stands.message != raw) and signed_by(raw, names):
                del self._believed[raw]

    def _lasts(self, message: bytes, names: frozenset[str]) -> bool:
        """Whether it counts as before, without a signature check: there may be thousands."""
        rosters = self._me.rosters
        return names <= rosters.left and rosters.verifier.lasts(message)

    def _stands(self, known: HoldState, now: HoldState | None) -> None:
        """The state of a hold changed, or the hold does not exist any more."""
        hold_id = known.hold.id
        reached = self._revocations.judge(hold_id, now)
        dropped, failed = purge_each(self._purge, reached)
        self._believed.pop(known.message, None)
        # An instance that needs another receipt sends the hold again.
        self._receipts.pop(hold_id, None)
        self._unpurged.pop(hold_id, None)
        if failed:
            self._unpurged[hold_id] = failed
        if now is not None:
            self._believed[now.message] = now
            self._tell(known, now, reached, dropped, "its lift does not count any more; ")
        elif self.live and not known.lifted:
            detail = "by the roster, no signature of the hold counts"
            self._emit(EventType.HOLD_RELEASED, **about(known), detail=detail)

    def _lift_again(self) -> list[bytes]:
        """Apply the lifts that did not count before and count now."""
        changed = []
        for raw, hold_id in list(self._aside.items()):
            try:
                self._me.verifier.lift(raw)
            except Untrusted:
                continue
            del self._aside[raw]
            before = self._revocations.holds
            self.learn(raw)
            self._unordered.discard((hold_id, True))  # it is not a new order
            if self._revocations.holds is not before:
                changed.append(hold_id)
        return changed

    def examine(self, raw: bytes) -> HoldState:
        """The state that a statement gives a hold, by the current roster; raises ``Untrusted``."""
        try:
            return to_state(self._me.verifier.hold_or_lift(raw))
        except Forged:
            raise
        except Untrusted:
            return to_state(self._me.verifier.held_within(raw))

    def _judge(self, raw: bytes) -> HoldState:
        try:
            return to_state(self._me.verifier.hold_or_lift(raw))
        except Forged:
            raise
        except Untrusted as error:
            refused = error
        try:
            state = to_state(self._me.verifier.held_within(raw))
        except Untrusted:
            raise refused from None
        self._refused(refused)
        if isinstance(refused, Unlisted):
            self._aside.pop(raw, None)
            self._aside[raw] = state.hold.id
            while len(self._aside) > ASIDE_MAX:
                del self._aside[next(iter(self._aside))]
        return state

    def believes(self, raw: bytes) -> bool:
        """Whether exactly this statement was verified and gives the state of its hold."""
        return raw in self._believed

    def receipt(self, hold_id: bytes) -> Receipt | None:
        """Return the receipt of this incarnation for a hold; ``None`` while it cannot give one.

        The receipt does not say yet whether the disk has the hold.
        """
        return self._receipts.get(hold_id)

    def _remember(self, state: HoldState) -> None:
        self._believed.pop(state.raw, None)
        self._believed[state.message] = state

    def _tell(
        self,
        before: HoldState | None,
        now: HoldState,
        tenants: tuple[str, ...],
        dropped: int,
        why: str = "",
    ) -> None:
        """Record what this instance did for a hold, in the name of the signer of the hold or lift.

        Without an order this is the only audit event for it, because ``issue`` handles only orders.
        A further signature on a hold, or a further lift, does not change its state: no event.
        """
        if not self.live or (before is not None and before.lifted == now.lifted):
            return
        order = (now.hold.id, now.lifted)
        self._unordered |= {order, (now.hold.id, False)} if before is None else {order}
        actor, reason = said(self._me, now)
        detail = f"{why}cause {now.hold.cause}: {reason}"
        if now.lifted:
            self._emit(EventType.HOLD_RELEASED, **about(now), actor=actor, detail=detail)
            return
        detail = f"{counted(len(tenants), 'tenant')}; {detail}"
        self._emit(EventType.HOLD_PURGED, **about(now), actor=actor, count=dropped, detail=detail)


class About(TypedDict):
    """The fields that every event of a hold has in common."""

    hold: bytes
    target: str
    tenant: str | None


def about(state: HoldState) -> About:
    """The id and the target of a hold, as event fields."""
    hold = state.hold
    return About(
        hold=hold.id,
        target=f"{hold.scope} {hold.target}",
        tenant=hold.target if hold.scope == "tenant" else None,
    )


def said(me: InstanceContext, state: HoldState) -> tuple[str | None, str]:
    """The signer of the hold's state, ``None`` if it is this instance itself, and the reason."""
    by = me.verifier.author(state.message)
    why = state.hold.reason if state.lift is None else lifted(state.lift)[1]
    return None if by == me.name else by, why


def to_state(verified: VerifiedHold | VerifiedLift) -> HoldState:
    """Convert a verified statement to a state of its hold."""
    match verified:
        case VerifiedHold():
            return HoldState(verified.hold, verified.raw)
        case VerifiedLift():
            held = verified.held
            return HoldState(held.hold, held.raw, lift=verified.raw)
