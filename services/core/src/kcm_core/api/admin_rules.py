"""The rules by which a Core serves operators.

The region, noun and verb in the request must be those of its subject, so that a request that was
signed for one place has no effect in another. A subject may also name this Core.
"""

from __future__ import annotations

from typing import Final

from kcm_runtime.admin_endpoint import RequestEvent
from kcm_runtime.instance import InstanceContext
from kcm_schemas import subjects
from kcm_schemas.admin.requests import AdminRequest
from kcm_schemas.codes import Code, KcmError

from kcm_core.api.read_only import LOOKS
from kcm_core.api.request_events import requested, type_of
from kcm_core.registry.baseline import RegistryBaseline

REMEMBERING: Final = frozenset(
    {("tenant", "put"), ("link", "put"), ("service", "put"), ("app", "put"), ("roster", "signed")}
)
"""Requests that a Core without a baseline of its region's registry refuses: its answer may depend
on entries that it does not know."""


class CoreRules:
    """Implements ``kcm_runtime.admin_endpoint.AdminRules`` for a Core."""

    def __init__(self, me: InstanceContext, baseline: RegistryBaseline) -> None:
        self._me: Final = me
        self._baseline: Final = baseline

    def check_place(self, subject: str, request: AdminRequest) -> None:
        """Raise ``forbidden`` for a request that was signed for another place."""
        place = self._me.region, request.noun, request.verb
        here = (subjects.admin(*place), subjects.admin_at(*place, self._me.name))
        if request.region != self._me.region or subject not in here:
            raise KcmError(Code.FORBIDDEN, "the request was signed for another place")

    def check_ready(self, request: AdminRequest) -> None:
        """Raise ``unavailable`` if the request needs a baseline that this Core does not have."""
        if (request.noun, request.verb) in REMEMBERING:
            self._baseline.require()

    def event(self, request: AdminRequest) -> RequestEvent:
        """Return the event, with the object that the operator named."""
        kind = type_of(request)
        return RequestEvent(kind, requested(request), reads=kind in LOOKS)
