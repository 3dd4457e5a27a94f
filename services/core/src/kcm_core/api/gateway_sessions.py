"""The sessions that Gateways opened with this Core: callers are instances on the roster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kcm_keymem.arena import Arena
from kcm_killswitch.model.held_keys import HeldKeys
from kcm_killswitch.model.incarnations import Incarnations
from kcm_runtime.host import Host
from kcm_runtime.instance import InstanceContext
from kcm_schemas.roster import Instance
from kcm_sessions.session_keys import SessionKeys
from kcm_sessions.sessions import INSTANCES, OpenSession, Sessions
from kcm_trust.envelopes import Unknown, Untrusted


class RosterCallers:
    """Callers by the roster in force; implements ``kcm_sessions.sessions.Callers``."""

    def __init__(self, me: InstanceContext, held: HeldKeys) -> None:
        self._me: Final = me
        self._held: Final = held

    def acting(self, caller: str) -> Instance:
        """Return a caller's entry; raises ``Untrusted``."""
        try:
            return self._not_held(self._me.verifier.acting(caller))
        except Untrusted:
            raise Untrusted("the caller is not on the roster, or is held", caller) from None

    def ticket(self, caller: str, signature: bytes, message: bytes) -> Instance:
        """Verify a ticket of a Gateway of this region; raises ``Untrusted``."""
        try:
            entry = self._me.verifier.ticket(caller, self._me.region, signature, message)
            return self._not_held(entry)
        except Untrusted as error:
            text = "it is of no Gateway on the roster, or of one that is held"
            kind = Unknown if isinstance(error, Unknown) else Untrusted
            raise kind(text, caller) from None

    def listen(self, changed: Callable[[frozenset[str]], None]) -> None:
        """Report callers whose roster entry changed, or whose key a hold takes out of service."""
        self._me.rosters.listen(changed)
        self._held.listen(changed)

    def _not_held(self, entry: Instance) -> Instance:
        if self._held.has(entry.instance, entry.public_key):
            raise Untrusted("an operator took the caller out of service", entry.instance)
        return entry


class GatewaySessions(Sessions[Instance]):
    """Sessions with Gateways, and whether their incarnations are registered."""

    def __init__(
        self, host: Host, keys: SessionKeys, incarnations: Incarnations, held: HeldKeys
    ) -> None:
        super().__init__(host, keys, RosterCallers(host.me, held), Arena, INSTANCES)
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
