"""Verification of applications.

One operator with role ``admin`` signs an application. A grant for every tenant also needs another
operator with role ``security``: a stolen key of one operator reads no customer that its grants do
not name. A revocation needs one signature. A retired signer whose endorsements do not list the
statement lends neither role. No application has the name of a member of the roster: the audit trail
could not distinguish their acts.
"""

from __future__ import annotations

from kcm_schemas.app import App
from kcm_schemas.roster import OperatorRole
from kcm_schemas.signed import Kind

from kcm_trust.checks import Checker, body_of
from kcm_trust.envelopes import Untrusted
from kcm_trust.identity import ROOT
from kcm_trust.rights import MAY_GRANT, Entry, is_operator, is_security


class AppChecker(Checker):
    """Verifies applications by one roster."""

    def app(self, raw: bytes) -> App:
        """Verify an application and its signers; raises ``Untrusted``."""
        app, signers = self._app(raw)
        if app.reaches_every_tenant and not (app.revoked or _two(signers)):
            raise Untrusted(
                "a grant for every tenant needs an operator with role security, too", app.app
            )
        return app

    def prepared_app(self, raw: bytes) -> App:
        """Verify an application that may still need its second signature; raises ``Untrusted``."""
        return self._app(raw)[0]

    def _app(self, raw: bytes) -> tuple[App, list[Entry]]:
        statement, signed = self._signed(raw, MAY_GRANT, Kind.APP)
        self._counts(statement, signed)
        signers = self._counting(statement, signed)
        app = body_of(App, statement)
        if app.app == ROOT or app.app in self._entries:
            raise Untrusted("an application has the name of a member of the roster", app.app)
        if not any(is_operator(entry, OperatorRole.ADMIN) for entry in signers):
            raise Untrusted("no operator with role admin signed the application", app.app)
        return app, signers


def _two(signers: list[Entry]) -> bool:
    """Whether one signer is an admin, and another one has the role security."""
    return any(
        is_operator(one, OperatorRole.ADMIN) and is_security(other)
        for one in signers
        for other in signers
        if one is not other
    )
