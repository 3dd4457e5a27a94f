"""A kill's evidence as it was signed, for whoever checks it offline: the noun ``hold export``.

One answer has a hold, its lift and its result, which fit into a message at their largest. A page of
lifts may be signed by somebody who retired: what lasts of them is asked for page by page
(``roster listed``), and may be larger than any message.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from kcm_schemas.admin.holds import HoldExport, HoldQuery
from kcm_schemas.admin.requests import AdminRequest
from kcm_schemas.codec import Message, decode
from kcm_schemas.codes import Code, KcmError

from kcm_killswitch.coordinator.hold_commands import Kills
from kcm_killswitch.coordinator.results import Results
from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.revocations import Revocations
from kcm_killswitch.replica.killswitch import KillSwitch


class EvidenceExport:
    """What one Core gives of its region's holds, signed."""

    def __init__(
        self, kills: Kills, results: Results, revocations: Revocations, switch: KillSwitch
    ) -> None:
        self._kills: Final = kills
        self._results: Final = results
        self._revocations: Final = revocations
        self._switch: Final = switch

    @property
    def verbs(self) -> Mapping[str, Callable[[AdminRequest], Awaitable[Message]]]:
        """What is served, to any operator."""
        return {"export": self._serve}

    async def _serve(self, request: AdminRequest) -> Message:
        return await self.export(decode(HoldQuery, request.payload).hold_id, request.deadline_ms)

    async def export(self, hold_id: bytes, deadline_ms: int) -> HoldExport:
        """A hold and what became of it, as it was signed. Raises ``unknown_hold``.

        The result is the one that the hold's status tells, and no other one.
        """
        status = await self._kills.status(hold_id, deadline_ms)
        record = await self._found(hold_id)
        page = None if record.lifted else self._switch.lifts.ended_by(record)
        return HoldExport(
            hold_id=hold_id,
            complete=status.complete and (status.lifted or status.concluded is not None),
            hold=record.raw,
            lift=record.lift or (page.raw if page else b""),
            result=await self._results.signed(hold_id, status.concluded),
            unstored=status.unstored,
        )

    async def _found(self, hold_id: bytes) -> HoldState:
        record = self._revocations.holds.get(hold_id)
        if record is not None:
            return record
        for ended in await self._kills.holds.archived(hold_id.hex()):
            return ended
        raise KcmError(Code.UNKNOWN_HOLD, f"no hold {hold_id.hex()} is known in this region")
