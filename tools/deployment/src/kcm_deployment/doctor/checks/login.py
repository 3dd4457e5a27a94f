"""The login of an address, and why a broker does not accept it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kcm_runtime.nats.connect_failures import Failure, Reason

from kcm_deployment.doctor.finding import Finding, bad, good, unknown

_FAULTS: Final[Mapping[Reason, tuple[str, str]]] = {
    Reason.LOGIN: (
        "the broker rejects this user or its secret",
        "compare the user and its file with the broker's; issue new credentials if they expired",
    ),
    Reason.CERTIFICATE: (
        "the broker's certificate is not trusted, so nothing was sent to it",
        "name the certificate of the broker's authority as `ca`",
    ),
    Reason.UNENCRYPTED: (
        "the broker offers no TLS, so nothing was sent to it",
        "set up TLS at the server",
    ),
    Reason.TLS: (
        "the broker and this client do not agree on TLS",
        "check the port; set `ca` if the server has `handshake_first`, else remove it",
    ),
    Reason.FULL: (
        "the broker has reached its maximum number of connections",
        "raise `max_connections` of the server",
    ),
}

_OTHER: Final = (
    "the broker closed the connection, or did not admit the client in time",
    "read the broker's log; set `ca` if the server has `handshake_first`",
)


def admitted() -> Finding:
    """Return the finding that the login works."""
    return good("login", "the broker accepts the login")


def rejected(failure: Failure) -> Finding:
    """Return the finding about a login that failed; it has no text of the broker."""
    return bad("login", *_FAULTS.get(failure.reason, _OTHER))


def unusable(text: str) -> Finding:
    """Return the finding about a file that cannot be used; ``text`` names the file."""
    return bad("login", text, "correct the file, or the configuration that names it")


def not_tried(check: str) -> Finding:
    """Return the finding about what needs a login that failed."""
    return unknown(check, "not checked, because the login failed", "first correct the login")
