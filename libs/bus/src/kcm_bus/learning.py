"""Taking a hold or a lift, by whatever way it came: verify, join, purge, and only then the rest.

All of it happens in one step without a wait. A purge that failed for a tenant is tried again
whenever the hold is heard again, and until then there is no receipt: a boot that may have keys
still must not say that it has none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kcm_control.holds import HoldRecord
from kcm_control.revocation import Revocations
from kcm_schemas.control import Receipt
from kcm_trust.verify import VerifiedHold, VerifiedLift

from kcm_bus.clock import Clock
from kcm_bus.emitting import Emit
from kcm_bus.membership import Membership
from kcm_bus.purging import purge_each

U32_MAX: Final = (1 << 32) - 1
"""The largest number that a receipt can carry."""


class Learning:
    """The way of every hold into this boot."""

    def __init__(
        self,
        membership: Membership,
        revocations: Revocations,
        purge: Callable[[str], int],
        emit: Emit,
        clock: Clock,
        changed: Callable[[bytes], None],
    ) -> None:
        """``changed`` is called with the id of a hold that says something new.

        That is after the purge, and when ``receipt`` has an answer.
        """
        self._me: Final = membership
        self._revocations: Final = revocations
        self._purge: Final = purge
        self._emit: Final = emit
        self._clock: Final = clock
        self._changed: Final = changed
        self._receipts: dict[bytes, Receipt] = {}
        self._unpurged: dict[bytes, tuple[str, ...]] = {}
        self._believed: dict[bytes, HoldRecord] = {}
        """By their own bytes, the statements that say how every hold stands: each comes at least
        twice, by broadcast and by the stream, and is verified once."""

    def learn(self, raw: bytes) -> HoldRecord:
        """Take a hold or lift; purges before it returns. Raises ``Untrusted``."""
        record = self._believed.get(raw) or to_record(self._me.verifier.hold_or_lift(raw))
        started = self._clock.elapsed()
        learned = self._revocations.learn(record)
        hold = record.hold
        again = self._unpurged.pop(hold.id, ())
        reached = b"" if record.lifted else self._revocations.reached(hold.scope, hold.target)
        known = self._receipts.get(hold.id)
        if known is not None and not record.lifted and known.reached != reached:
            # Somebody is reached who was not known to be: told again, it is purged again.
            again = (*again, *self._revocations.reach(hold.scope, hold.target))
        dropped, failed = purge_each(self._purge, dict.fromkeys(learned.purge + again))
        spent = self._clock.elapsed() - started
        if failed:
            self._receipts.pop(hold.id, None)
            self._unpurged[hold.id] = failed
        elif not record.lifted and (learned.changed or known is None or known.reached != reached):
            self._receipts[hold.id] = Receipt(
                hold_id=hold.id,
                instance=self._me.name,
                boot=self._me.boot,
                role=self._me.role,
                region=self._me.region,
                keys=min(dropped, U32_MAX),
                purge_us=min(int(spent * 1e6), U32_MAX),
                unkept="",
                reached=reached,
            )
        if learned.changed:
            self._remember(record)
            self._changed(hold.id)
            self._tell(record, learned.purge, dropped)
        return record

    def believes(self, raw: bytes) -> bool:
        """Whether this very statement was verified, and says how its hold stands."""
        return raw in self._believed

    def receipt(self, hold_id: bytes) -> Receipt | None:
        """Return this boot's word that it purged for a hold; ``None`` while it cannot give it.

        Whether the hold is kept is not known here.
        """
        return self._receipts.get(hold_id)

    def _remember(self, record: HoldRecord) -> None:
        self._believed.pop(record.raw, None)
        self._believed[record.message] = record

    def _tell(self, record: HoldRecord, tenants: tuple[str, ...], dropped: int) -> None:
        hold = record.hold
        self._emit(
            "hold.lifted" if record.lifted else "hold.purged",
            actor=record.issuer,
            tenant=hold.target if hold.scope == "tenant" else None,
            count=dropped,
            detail=f"{hold.id.hex()} {hold.scope} {hold.target}: {len(tenants)} tenants",
        )


def to_record(verified: VerifiedHold | VerifiedLift) -> HoldRecord:
    """A verified statement as a state of its hold."""
    match verified:
        case VerifiedHold():
            return HoldRecord(verified.hold, verified.issuer, verified.raw)
        case VerifiedLift():
            held = verified.held
            return HoldRecord(held.hold, held.issuer, held.raw, lift=verified.raw)
