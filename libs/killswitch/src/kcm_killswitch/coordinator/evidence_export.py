"""The evidence of a kill as it was signed, for offline verification: the noun ``hold export``.

One answer contains a hold, its lift and its result. All three fit into one message, even at their
maximum sizes. The signer of a lift page may be retired. The endorsements of its statements may be
larger than any message, so the caller requests them page by page (``roster listed``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from kcm_schemas.admin.holds import HoldExport, HoldQuery
from kcm_schemas.admin.requests import AdminRequest
from kcm_schemas.codec import Message, decode
from kcm_schemas.codes import Code, KcmError

from kcm_killswitch.coordinator.hold_commands import HoldCommands
from kcm_killswitch.coordinator.results import Results
from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.revocations import Revocations
from kcm_killswitch.replica.killswitch import KillSwitch


class EvidenceExport:
    """The signed evidence that one Core exports for the holds of its region."""

    def __init__(
        self, kills: HoldCommands, results: Results, revocations: Revocations, switch: KillSwitch
    ) -> None:
        self._kills: Final = kills
        self._results: Final = results
        self._revocations: Final = revocations
        self._switch: Final = switch

    @property
    def verbs(self) -> Mapping[str, Callable[[AdminRequest], Awaitable[Message]]]:
        """The verbs that any operator may call."""
        return {"export": self._serve}

    async def _serve(self, request: AdminRequest) -> Message:
        return await self.export(decode(HoldQuery, request.payload).hold_id, request.deadline_ms)

    async def export(self, hold_id: bytes, deadline_ms: int) -> HoldExport:
        """Return a hold, its lift and its result as they were signed. Raises ``unknown_hold``.

        The result is the one that the status of the hold reports, and no other one.
        """
        status = await self._kills.status(hold_id, deadline_ms)
        state = await self._found(hold_id)
        page = None if state.lifted else self._switch.ended_by(state)
        return HoldExport(
            hold_id=hold_id,
            complete=status.complete and (status.lifted or status.concluded is not None),
            hold=state.raw,
            lift=state.lift or (page.raw if page else b""),
            result=self._results.signed(hold_id, status.concluded),
            unstored=status.unstored,
        )

    async def _found(self, hold_id: bytes) -> HoldState:
        state = self._revocations.holds.get(hold_id)
        if state is not None:
            return state
        for ended in await self._kills.holds.archived(hold_id.hex()):
            return ended
        raise KcmError(Code.UNKNOWN_HOLD, f"no hold {hold_id.hex()} is known in this region")
