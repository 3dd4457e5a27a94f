"""Verification of what begins a session: the callee's key, and the caller's ticket."""

from __future__ import annotations

from kcm_schemas.roster import Instance, Operator, Role
from kcm_schemas.session import SessionKey
from kcm_schemas.signed import Kind

from kcm_trust.checks import Checker, body_of
from kcm_trust.envelopes import Untrusted
from kcm_trust.rights import INSTANCE, OPERATOR, itself


class SessionChecker(Checker):
    """Verifies session keys and tickets by one roster."""

    def session_key(self, raw: bytes) -> SessionKey:
        """Verify a session key, signed by the instance that it names.

        The caller compares the instance with the one that it asked, and the times with its clock.
        """
        statement, signers = self._signed(raw, INSTANCE, Kind.SESSION_KEY, acting=True)
        body = body_of(SessionKey, statement)
        itself(signers, body.instance, body.role, body.region)
        return body

    def acting_operator(self, name: str) -> Operator:
        """Return an operator that is on the roster and not retired; raises ``Untrusted``."""
        entry = OPERATOR.check(self._entries.get(name), name)
        if not isinstance(entry, Operator) or entry.retired is not None:
            raise Untrusted("the operator is retired", name)
        return entry

    def operator_ticket(self, caller: str, signature: bytes, message: bytes) -> Operator:
        """Verify a session ticket, signed by an operator; returns the caller."""
        entry = self.acting_operator(caller)
        if not self._holds(entry.public_key, signature, message):
            raise Untrusted("a signature is not valid", caller)
        return entry

    def ticket(self, caller: str, region: str, signature: bytes, message: bytes) -> Instance:
        """Verify a session ticket, signed by a Gateway of this region; returns the caller."""
        entry = self.acting(caller)
        if (entry.role, entry.region) != (Role.GATEWAY, region):
            raise Untrusted(
                "the caller is not a Gateway of this region", f"{caller}, region {region}"
            )
        if not self._holds(entry.public_key, signature, message):
            raise Untrusted("a signature is not valid", caller)
        return entry
