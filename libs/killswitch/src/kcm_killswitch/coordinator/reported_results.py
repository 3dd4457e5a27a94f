"""The results that this Core has reported, and on which it relies.

The store may lack such a result by now, or have another one. Of two results that were stored, the
first one stays.
"""

from __future__ import annotations

from typing import Final

from kcm_schemas.admin.kill_status import Concluded
from kcm_trust.verify import SignedResult

from kcm_killswitch.coordinator.result_cache import ResultCache
from kcm_killswitch.coordinator.result_checks import Places, ResultChecks
from kcm_killswitch.model.kill_result import concluded_of, earliest


class ReportedResults:
    """Remembers results by hold, and decides which of two goes first."""

    def __init__(self, checks: ResultChecks) -> None:
        self._checks: Final = checks
        self.relied: Final = ResultCache()
        """Results on which this Core relied, and which the store may lack by now."""
        self.shown: Final = ResultCache()
        """Reported results of lifted kills, which this Core cannot check any more."""

    def get(self, hold_id: bytes) -> SignedResult | None:
        """The result of a hold on which this Core relied."""
        return self.relied.get(hold_id)

    async def in_place_of(
        self, found: SignedResult | None, hold_id: bytes, places: Places
    ) -> SignedResult | None:
        """The result that this Core reported and that belongs in place of ``found``; else ``None``.

        A result that was never stored gives way. Of two that were stored, the first one stays.
        """
        known = self.relied.get(hold_id)
        if known is None or (found is not None and not self.goes_before(known, found)):
            return None
        known = await self._checks.verified(hold_id, known.raw)
        if known is None or not self._checks.counts(known, places):
            return None
        return known if self._checks.lies(known, places) else None

    def goes_before(self, known: SignedResult, found: SignedResult) -> bool:
        """Whether this Core knows of another result that was stored, and that is the first one."""
        if known.result == found.result or not self.relied.is_stored(known.result.hold_id):
            return False
        return earliest([known.result, found.result]) == known.result

    def relies_on(self, found: SignedResult) -> bool:
        """Whether the facts of this Core once said *complete*, and confirmed this very result."""
        known = self.relied.get(found.result.hold_id)
        told_before = known is not None and known.result == found.result
        return told_before or self._checks.is_signed(found)

    def keep(self, found: SignedResult) -> None:
        """Remember a stored result, by whether this Core relies on it."""
        kept = self.relied if self.relies_on(found) else self.shown
        kept.keep(found, stored=True)

    def signed(self, hold_id: bytes, concluded: Concluded | None) -> bytes:
        """The signed result that a status reported; empty if it reported none."""
        for known in (self.relied.get(hold_id), self.shown.get(hold_id)):
            if known is not None and concluded_of(known.result) == concluded:
                return known.raw
        return b""
