"""What counts by the highest roster: which lifts, and what a stream or a disk says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from kcm_killswitch.model import id_set
from kcm_killswitch.model.hold_set import HoldSet
from kcm_killswitch.replica.hold_applier import to_state
from kcm_killswitch.replica.lift_page_keeper import is_page
from kcm_runtime.nats.ports import Entry
from kcm_schemas import subjects
from kcm_trust.verify import Untrusted, VerifiedHold, Verifier

from tests.simulation.history import HoldFacts


class Judgement:
    """Judges statements by the highest roster, and knows which regions have that."""

    def __init__(
        self,
        verifier: Verifier,
        holds: Mapping[bytes, HoldFacts],
        raw: Mapping[bytes, bytes],
        now: Callable[[], float],
        note: Callable[[str], None],
    ) -> None:
        """``verifier`` is by the first roster; ``raw`` has every hold as it was signed."""
        self._verifier: Final = verifier
        self.holds: Final = holds
        self.raw: Final = raw
        self._now: Final = now
        self.note: Final = note
        self._judge = verifier
        """By the highest roster that there is, and all lists."""
        self.lifts: Final[dict[bytes, str]] = {}
        """Every lift, and who signed it first."""
        self.roster_at: Final[dict[str, float]] = {}
        """When each region's stream had the highest roster."""

    @property
    def version(self) -> int:
        """The highest roster's."""
        return self._judge.roster.version

    def left(self, judge: Verifier) -> None:
        """The root signed another roster: by it all is judged now."""
        self._judge = judge
        self.roster_at.clear()

    def lifts_about(self, hold_id: bytes) -> list[bytes]:
        """Every lift of a hold."""
        return [raw for raw in self.lifts if self._about(raw) == hold_id]

    def lifts_of(self, signer: str) -> list[bytes]:
        """Every lift that somebody signed."""
        return [raw for raw, issuer in self.lifts.items() if issuer == signer]

    def roster_stored(self, region: str) -> None:
        """A region's stream has the highest roster."""
        if region not in self.roster_at:
            self.roster_at[region] = self._now()
            self.note(f"the highest roster is in {region}")

    def roster_lost(self, region: str) -> None:
        """A region's stream went back to before it had it."""
        self.roster_at.pop(region, None)

    def _about(self, raw: bytes) -> bytes:
        verified = self._verifier.lift(raw)
        return verified.held.hold.id

    def counts(self, lift: bytes) -> bool:
        """Whether a lift counts."""
        try:
            self._judge.lift(lift)
        except Untrusted:
            return False
        return True

    def read(self, entries: Sequence[Entry]) -> dict[bytes, bool]:
        """Which holds a stream has, and whether they are lifted there."""
        return self.judge(
            entry.data
            for entry in entries
            if entry.data and subjects.control_noun(entry.subject) in ("hold", "lifts")
        )

    def judge(self, statements: Iterable[bytes]) -> dict[bytes, bool]:
        """Which holds some statements are about, and whether they are lifted by them."""
        view: dict[bytes, bool] = {}
        for raw in statements:
            if is_page(raw):
                view |= self._ended(raw)
                continue
            verified = self._verifier.hold_or_lift(raw)
            held = verified if isinstance(verified, VerifiedHold) else verified.held
            ended = verified is not held and self.counts(raw)
            view[held.hold.id] = view.get(held.hold.id, False) or ended
        return view

    def _ended(self, raw: bytes) -> dict[bytes, bool]:
        """The holds that a page ends, by the highest roster."""
        try:
            page = self._judge.lifts(raw).lifts
        except Untrusted:
            return {}
        known = [self.holds.get(one) for one in id_set.each(page.ids)]
        return {
            one.hold_id: True
            for one in known
            if one is not None and (one.cause, one.origin) == (page.cause, page.origin)
        }

    def seen(self, holds: HoldSet) -> dict[bytes, bool]:
        """How the holds stand for somebody: those that pages end have no record there."""
        known = {record.hold.id: record.lifted for record in holds}
        for hold_id in self.holds.keys() - known.keys():
            if holds.ends(to_state(self._verifier.hold(self.raw[hold_id]))):
                known[hold_id] = True
        return known
