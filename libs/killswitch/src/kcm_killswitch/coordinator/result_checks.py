"""What a Core accepts of a result, and whether the result is of the hold as it is in force now."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from kcm_runtime.instance import InstanceContext
from kcm_runtime.logs import fields
from kcm_schemas.codec import encode
from kcm_schemas.kill_result import Result
from kcm_schemas.signed import SIGNATURES_MAX
from kcm_trust.result_statements import CLOCKS_APART_MS, accounted, finished, timely
from kcm_trust.verify import SignedResult, Untrusted, Verifier

from kcm_killswitch.coordinator.result_cache import ResultCache
from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.kill_result import of_this_period

log = logging.getLogger(__name__)

SLICE: Final = 16
"""Receipts that are checked before the loop yields to other tasks; they take about 2 ms."""

Places = Mapping[str, int]
"""The known sequences of a hold, by region: where the hold is in each region's stream."""


class ResultChecks:
    """Checks results by the present roster, and remembers those that passed."""

    def __init__(self, me: InstanceContext) -> None:
        self._me: Final = me
        self._by: Verifier = me.verifier
        self._checked = ResultCache()
        """Results whose receipts were all checked by that roster."""

    async def verified(self, hold_id: bytes, raw: bytes) -> SignedResult | None:
        """A result of this hold that is signed, finished and accounted for; else ``None``.

        The Core that concluded it, or this very Core, has to have signed it. So no Core can be
        reported to have concluded what it did not conclude.
        """
        verifier = self._me.verifier
        if self._by is not verifier:
            self._by, self._checked = verifier, ResultCache()
        checked = self._checked
        known = checked.get(hold_id)
        if known is not None and known.raw == raw:
            return known
        try:
            found = verifier.result(raw)
            if found.result.hold_id != hold_id:
                raise Untrusted("the result of another hold")
            if not (found.by_author or self.is_signed(found)):
                raise Untrusted(
                    "the Core that the result names has not signed it", found.result.instance
                )
            finished(found.result)
            receipts = []
            for count, one in enumerate(found.result.receipts, 1):
                receipts.append(verifier.receipt_once(one))
                if count % SLICE == 0:
                    await asyncio.sleep(0)
            accounted(found.result, receipts)
        except Untrusted as error:
            log.warning(
                "a result of a kill is not believed, and does not count: %s",
                error,
                extra=fields(hold=hold_id),
            )
            return None
        checked.keep(found)
        return found

    def timely(self, result: Result, state: HoldState, now_ms: int) -> bool:
        """Whether its times are possible: not before the hold was signed, and not in the future."""
        try:
            timely(result, state.hold)
        except Untrusted as error:
            log.warning(
                "a result of a kill is not believed, and does not count: %s",
                error,
                extra=fields(hold=state.hold.id, region=result.region, instance=result.instance),
            )
            return False
        return result.concluded_ms <= now_ms + CLOCKS_APART_MS

    def counts(self, found: SignedResult, places: Places) -> bool:
        """Whether it is of this period of its hold."""
        return of_this_period(found.result, self._me.region, places, self._me.rosters.version)

    def lies(self, found: SignedResult, places: Places) -> bool:
        """Whether the hold is stored here at the sequence that the result names.

        If the hold was written again, the facts have to say *complete* once more: an incarnation
        that began while the hold was missing may not have read it.
        """
        mine = [one for one in found.result.regions if one.region == self._me.region]
        return all(one.durable_at == places.get(self._me.region) for one in mine)

    def stands(self, found: SignedResult, places: Places) -> bool:
        """Whether it counts, and an active Core of this region has signed it."""
        return self.counts(found, places) and bool(found.acting_in(self._me.region))

    def belongs(self, found: SignedResult, places: Places) -> bool:
        """Whether it counts, and a Core of this region has signed it, which may have left since."""
        return self.counts(found, places) and self.was_ours(found)

    def is_signed(self, found: SignedResult) -> bool:
        """Whether this very Core has signed it: its own facts said *complete* then."""
        return found.signed_by(self._me.name)

    def was_ours(self, found: SignedResult) -> bool:
        """Whether a Core of this region has signed it, which may have left since."""
        return any(one.region == self._me.region for one in found.signers)

    def countersigned(self, found: SignedResult) -> SignedResult:
        """Add the signature of this Core.

        The signature of the Core that concluded the result stays. If there are too many signatures,
        those of retired signers are removed first. Next are those of Cores that are neither of this
        region nor of the region that concluded the result: other regions require a signature of the
        concluding region.
        """
        me = self._me
        entries = {one.instance: one for one in found.signers if one.instance != me.name}

        def order(name: str) -> tuple[bool, bool, bool, bool, str]:
            one, content = entries[name], found.result
            elsewhere = one.region != me.region
            abroad = one.region != content.region
            return name != content.instance, bool(one.retired), elsewhere, abroad, name

        kept = sorted(entries, key=order)[: SIGNATURES_MAX - 1]
        signatures = [one for one in found.statement.signatures if one.signer in kept]
        # Signatures that do not count may fill the list: a Core that stores the result can add any.
        statement = found.statement.model_copy(update={"signatures": signatures})
        return me.verifier.result(encode(me.identity.countersign(statement)))
