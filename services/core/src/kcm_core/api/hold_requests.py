"""Operators' requests on holds: place, lift, watch, list and preview."""

from __future__ import annotations

from typing import Final

from kcm_killswitch.coordinator.hold_commands import HoldCommands
from kcm_schemas.admin.holds import HoldPageQuery, HoldPrefix, HoldQuery, PreviewQuery
from kcm_schemas.admin.requests import AdminRequest, PutStatement
from kcm_schemas.codec import Message, decode


class HoldRequests:
    """Decodes the requests, and passes them to the coordinator of the kill switch."""

    def __init__(self, kills: HoldCommands) -> None:
        self._kills: Final = kills

    async def put(self, request: AdminRequest) -> Message:
        """Place or lift a hold: answer ``hold put``."""
        raw = decode(PutStatement, request.payload).statement
        return await self._kills.place(raw, request.deadline_ms)

    async def status(self, request: AdminRequest) -> Message:
        """Answer ``hold status``."""
        hold_id = decode(HoldQuery, request.payload).hold_id
        return await self._kills.status(hold_id, request.deadline_ms)

    async def page(self, request: AdminRequest) -> Message:
        """Answer ``hold list``."""
        return await self._kills.holds.page(decode(HoldPageQuery, request.payload))

    async def show(self, request: AdminRequest) -> Message:
        """Answer ``hold show``."""
        return await self._kills.holds.find(decode(HoldPrefix, request.payload).prefix)

    async def preview(self, request: AdminRequest) -> Message:
        """Answer ``hold preview``."""
        query = decode(PreviewQuery, request.payload)
        return await self._kills.preview(
            query.scope, query.target, request.deadline_ms, instances=query.instances
        )
