"""Errors of the client library: why an attempt to connect failed, and the code for callers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final
from urllib.parse import ParseResult, SplitResult, urlsplit

from kcm_schemas.codes import Code, KcmError
from nats import errors as nats_errors
from nats.aio.client import Client

from kcm_runtime.nats.ports import NobodyListens, NotAllowed


class Unencrypted(nats_errors.Error):
    """The address requires TLS and the broker offers none: no password is sent to it."""


class Refused(nats_errors.Error):
    """The broker does not let this client publish to the subject of a request."""


class Reason(Enum):
    """Why a client could not connect."""

    LOGIN = "login"
    """The broker rejected the user or the password."""
    CERTIFICATE = "certificate"
    """The broker's certificate is not trusted."""
    UNENCRYPTED = "unencrypted"
    """The broker offers no TLS, and the address requires it."""
    TLS = "tls"
    """The broker and the client have no common TLS parameters."""
    FULL = "full"
    """The broker accepts no further connections."""
    STRANGER = "stranger"
    """The peer is not a broker, or it closes the connection at once."""
    SILENT = "silent"
    """The peer accepts the connection and sends nothing."""
    OTHER = "other"
    """Any other reason."""


LASTING: Final = frozenset({Reason.LOGIN, Reason.CERTIFICATE, Reason.UNENCRYPTED})
"""Reasons that a further attempt does not change, unless a person changes something."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt. ``detail`` is safe to show: it contains no text of the broker."""

    reason: Reason
    detail: str = ""


_SAID: Final = {
    "authorization violation": Reason.LOGIN,
    "user authentication expired": Reason.LOGIN,
    "user authentication revoked": Reason.LOGIN,
    "maximum connections exceeded": Reason.FULL,
    "expecting info message": Reason.STRANGER,
    "json parse error": Reason.STRANGER,
}
"""Parts of errors of the client library or the broker, and their reasons."""

_REPORT_MAX: Final = 200

_PORT: Final = 4222
"""The default port of a broker's address."""


def failure_of(error: BaseException) -> Failure:
    """Return the reason of an attempt's error."""
    match error:
        case ssl.SSLCertVerificationError():
            return Failure(Reason.CERTIFICATE, str(error.verify_message).rstrip("."))
        case ssl.SSLError():
            return _tls_failure(error.reason or "")
        case Unencrypted():
            return Failure(Reason.UNENCRYPTED)
        case nats_errors.Error():
            text = str(error).lower()
            said = (reason for part, reason in _SAID.items() if part in text)
            return Failure(next(said, Reason.OTHER))
        case TimeoutError():
            return Failure(Reason.SILENT)
        case _:
            return Failure(Reason.OTHER)


class Attempts:
    """What failed of the attempts to connect to a broker, since the last success."""

    def __init__(self, urls: Iterable[str]) -> None:
        """``urls`` are the addresses of all nodes; those that a broker names do not count."""
        self._rejecting: Final = dict.fromkeys(map(_node_of, urls), False)
        self.failure: Failure | None = None
        """Why the latest attempts failed; a broker may truncate the reason of a rejection."""
        self.rejected: Final = asyncio.Event()
        """Whether every node failed for a reason of ``LASTING``: one that does may be hostile."""

    def failed(self, error: BaseException, client: Client | None) -> None:
        """Note a failed attempt; ``client`` still has the node that it tried."""
        failure = failure_of(error)
        if failure.reason is not Reason.OTHER or self.failure is None:
            self.failure = failure
        server = client and client._current_server  # noqa: SLF001 - it has no method
        if server and failure.reason in LASTING and (node := _node(server.uri)) in self._rejecting:
            self._rejecting[node] = True
        if all(self._rejecting.values()):
            self.rejected.set()

    def succeeded(self) -> None:
        """Note a connection: nothing has failed since."""
        self.failure = None
        self._rejecting.update(dict.fromkeys(self._rejecting, False))
        self.rejected.clear()


def _node_of(url: str) -> tuple[str | None, int]:
    """Return the node of a configured address; one that is no address is a node of its own."""
    try:
        return _node(urlsplit(url if "://" in url else f"nats://{url}"))
    except ValueError:
        return url, 0


def _node(url: SplitResult | ParseResult) -> tuple[str | None, int]:
    return url.hostname, url.port or _PORT


def _tls_failure(reason: str) -> Failure:
    """Return the reason of a TLS error.

    A connection that the broker refuses may end with data after its end, which hides the refusal.
    """
    if reason == "APPLICATION_DATA_AFTER_CLOSE_NOTIFY":
        return Failure(Reason.OTHER)
    return Failure(Reason.TLS, reason.replace("_", " ").lower())


def kcm_error(error: Exception) -> KcmError:
    """Return the error for callers of a request or publication that failed with ``error``."""
    match error:
        case nats_errors.NoRespondersError():
            return NobodyListens()
        case nats_errors.MaxPayloadError():
            return KcmError(Code.TOO_LARGE)
        case TimeoutError():
            return KcmError(Code.DEADLINE_EXCEEDED, "no answer in time")
        case Refused():
            return NotAllowed()
        case _:
            return KcmError(Code.UNAVAILABLE, "the broker cannot be reached")


def report(error: Exception) -> str:
    """Return what a broker reports about a connection that it keeps, for the log.

    A broker chooses the words of a refusal, and a peer may choose the subject in it. So a refusal
    is quoted, and cut.
    """
    text = str(error)
    if "permissions violation" not in text.lower():
        return type(error).__name__
    hint = "compare its user's permissions"
    if "_INBOX" in text:
        hint += " with `inbox` in the configuration"
    return f"{text[:_REPORT_MAX]!r}: {hint}"
