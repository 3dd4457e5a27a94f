"""Why an attempt to connect failed, told apart by who has to do something about it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from enum import Enum
from typing import Final

from nats import errors as nats_errors


class Unencrypted(nats_errors.Error):
    """The address asks for TLS and the broker offers none: no password is sent to it."""


class Reason(Enum):
    """What kept a client out."""

    LOGIN = "login"
    """The broker does not know this user with this password."""
    CERTIFICATE = "certificate"
    """The broker's certificate is not believed."""
    UNENCRYPTED = "unencrypted"
    """The broker offers no TLS, and the address asks for it."""
    TLS = "tls"
    """The broker and the client do not agree on TLS."""
    FULL = "full"
    """The broker has no room for another connection."""
    STRANGER = "stranger"
    """What answers there is no broker, or it ends the connection at once."""
    SILENT = "silent"
    """It takes the connection and says nothing."""
    OTHER = "other"
    """Whatever else."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that failed. ``detail`` is safe to show: nothing that a broker wrote is in it."""

    reason: Reason
    detail: str = ""


_SAID: Final = {
    "authorization violation": Reason.LOGIN,
    "maximum connections exceeded": Reason.FULL,
    "expecting info message": Reason.STRANGER,
    "json parse error": Reason.STRANGER,
}
"""What the client library writes, or a broker says, and what it means."""


def failure_of(error: BaseException) -> Failure:
    """What the error of an attempt means."""
    match error:
        case ssl.SSLCertVerificationError():
            return Failure(Reason.CERTIFICATE, str(error.verify_message).rstrip("."))
        case ssl.SSLError():
            return Failure(Reason.TLS, (error.reason or "").replace("_", " ").lower())
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
