"""The sessions that Gateways opened with this Core: callers are instances on the roster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kcm_keymem.arena import Arena
from kcm_killswitch.model.incarnations import Incarnations
from kcm_runtime.host import Host
from kcm_runtime.instance import InstanceContext
from kcm_schemas.roster import Instance
from kcm_sessions.session_keys import SessionKeys
from kcm_sessions.sessions import INSTANCES, OpenSession, Sessions
from kcm_trust.verify import Untrusted


class RosterCallers:
    """Callers by the roster in force; implements ``kcm_sessions.sessions.Callers``."""

    def __init__(self, me: InstanceContext) -> None:
        self._me: Final = me

    def acting(self, caller: str) -> Instance:
        """Return a caller's entry; raises ``Untrusted``."""
        try:
            return self._me.verifier.acting(caller)
        except Untrusted:
            raise Untrusted("the caller is not on the roster", caller) from None

    def ticket(self, caller: str, signature: bytes, message: bytes) -> Instance:
        """Verify a ticket of a Gateway of this region; raises ``Untrusted``."""
        try:
            return self._me.verifier.ticket(caller, self._me.region, signature, message)
        except Untrusted:
            raise Untrusted("it is of no Gateway on the roster", caller) from None

    def listen(self, changed: Callable[[frozenset[str]], None]) -> None:
        """Report callers whose roster entry changed."""
        self._me.rosters.listen(changed)


class GatewaySessions(Sessions[Instance]):
    """Sessions with Gateways, and whether their incarnations are registered."""

    def __init__(self, host: Host, keys: SessionKeys, incarnations: Incarnations) -> None:
        super().__init__(host, keys, RosterCallers(host.me), Arena, INSTANCES)
        self._incarnations: Final = incarnations

    def registered(self, session: OpenSession) -> bool:
        """Whether this Core has read the lease entry of the caller's incarnation.

        A Core that decides on the completeness of a kill knows every incarnation that is served.
        """
        return self._incarnations.knows(session.caller, session.incarnation)

    def session(self, caller: str, session_id: bytes) -> tuple[OpenSession, Instance]:
        """Return an open session, and its caller's entry on the roster in force.

        Raises as ``find`` and ``acting`` do.
        """
        known = self.find(caller, session_id)
        return known, self.acting(known)
