"""The rules by which a Core serves operators.

The region, noun, verb and instance in the request must be those of its subject, and its incarnation
that of this Core. So a request has no effect in another place, in another Core, or after a restart.
Only what carries a hold or a lift is for any Core of the region: a copy of it changes nothing.
"""

from __future__ import annotations

from typing import Final

from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.revocations import Revocations
from kcm_runtime.admin_endpoint import RequestEvent
from kcm_runtime.instance import InstanceContext
from kcm_schemas import subjects
from kcm_schemas.admin.requests import CLEAR, AdminRequest
from kcm_schemas.audit import EventType
from kcm_schemas.codes import Code, KcmError

from kcm_core.api.read_only import LOOKS
from kcm_core.api.request_events import ordered, requested, type_of
from kcm_core.registry.baseline import RegistryBaseline

REMEMBERING: Final = frozenset(
    {("tenant", "put"), ("link", "put"), ("service", "put"), ("app", "put"), ("roster", "signed")}
)
"""Requests that a Core without a baseline of its region's registry refuses: its answer may depend
on entries that it does not know."""


class CoreRules:
    """Implements ``kcm_runtime.admin_endpoint.AdminRules`` for a Core."""

    def __init__(
        self, me: InstanceContext, baseline: RegistryBaseline, revocations: Revocations
    ) -> None:
        self._me: Final = me
        self._baseline: Final = baseline
        self._revocations: Final = revocations

    def check_place(self, subject: str, request: AdminRequest) -> None:
        """Raise ``forbidden`` for a request that was signed for another place.

        Raises ``unknown_session`` for one that was signed for another incarnation of this Core.
        """
        place = self._me.region, request.noun, request.verb
        if subject == subjects.admin(*place):
            right = place[1:] in CLEAR and request.instance is None and request.incarnation is None
        else:
            right = subject == subjects.admin_at(*place, self._me.name)
            right = right and request.instance == self._me.name
        if request.region != self._me.region or not right:
            raise KcmError(Code.FORBIDDEN, "the request was signed for another place")
        if request.instance is not None and request.incarnation != self._me.incarnation:
            raise KcmError(Code.UNKNOWN_SESSION, "the request was signed for another incarnation")

    def check_ready(self, request: AdminRequest) -> None:
        """Raise ``unavailable`` if the request needs a baseline that this Core does not have."""
        if (request.noun, request.verb) in REMEMBERING:
            self._baseline.require()

    def event(self, request: AdminRequest) -> RequestEvent:
        """Return the event, with the object that the operator named.

        A client that watches a kill gives the same order every second: it is recorded once.
        """
        kind = type_of(request)
        repeats = kind is EventType.ADMIN_HOLD_PUT and self._known(request)
        return RequestEvent(kind, requested(request), reads=kind in LOOKS, repeats=repeats)

    def _known(self, request: AdminRequest) -> bool:
        """Whether this Core knows the hold or lift of a request already.

        It is not verified yet. One that does not verify is refused, and recorded as that.
        """
        order = ordered(request)
        if order is None:
            return False
        hold, lifts = order
        state = self._revocations.holds.get(hold.id)
        if state is None:
            return self._revocations.holds.ends(HoldState(hold, b""))
        return state.lifted or not lifts
