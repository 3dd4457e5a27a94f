"""The port to the broker: ask one question, get one answer. A fake in the tests implements it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Final, Protocol
from urllib.parse import urlsplit

from kcm_runtime.config import BusAddress
from kcm_runtime.files.secret_file import SecretFileError
from kcm_runtime.nats.connect_failures import Failure, Reason
from kcm_runtime.nats.connection import Connection

from kcm._internal.client_context import NotLetIn
from kcm.errors import Unavailable

CONNECT_S: Final = 5.0
"""Seconds to wait for a broker: one attempt to connect takes no longer."""

NATS_PORT: Final = 4222
"""The port of a URL that names none."""


class Transport(Protocol):
    """One connection to one region's broker.

    ``request`` raises ``KcmError``: ``unavailable``, ``deadline_exceeded`` or ``too_large``. What
    an answer says is not known to be true.
    """

    async def request(self, subject: str, body: bytes, timeout_s: float) -> bytes:
        """Send now, or fail; wait at most ``timeout_s`` seconds for the answer."""
        ...

    async def close(self) -> None:
        """Give the connection up. Nothing may be asked afterwards."""


Opener = Callable[[BusAddress, str], Awaitable[Transport]]
"""Makes a transport for an address, under a name that the broker shows."""


async def open_nats(address: BusAddress, name: str) -> Transport:
    """Connect to NATS; raises ``unavailable``, at once when nothing listens there.

    What the context has to be changed for is ``NotLetIn``. The client library tries for ever, so
    who listens is looked at first, and why its last attempt failed when the time is up.
    """
    await _look_at_any(address.urls)
    # A kill is not refused because the broker is old: that is its services' business, and told.
    connection = Connection(address.model_copy(update={"allow_old_broker": True}), name)
    try:
        await asyncio.wait_for(connection.start(), CONNECT_S)
    except TimeoutError:
        await connection.close()
        raise _why(address, connection.failure or Failure(Reason.SILENT)) from None
    except SecretFileError as error:
        raise NotLetIn(str(error), "the context names this file") from None
    return connection


async def why_not(address: BusAddress, connection: Connection) -> Unavailable:
    """Why a connection that is being made is not there yet, as far as can be seen from here."""
    try:
        await _look_at_any(address.urls)
    except Unavailable as error:
        return error
    return _why(address, connection.failure or Failure(Reason.SILENT))


_TEXTS: Final = {
    Reason.LOGIN: (
        "the broker at {where} does not let {user} in: no such user, or another password",
        "the context names the user, and {password_file} has the password",
    ),
    Reason.CERTIFICATE: (
        "the certificate of the broker at {where} is not believed: {detail}",
        "SSL_CERT_FILE names the authority's certificate; the address has the name in it",
    ),
    Reason.UNENCRYPTED: (
        "the broker at {where} offers no TLS, and the context asks for it with tls://",
        "no password was sent; nats:// is for a broker without TLS",
    ),
    Reason.TLS: (
        "the broker at {where} and this client do not agree on TLS: {detail}",
        "is it the right port, and does the broker want a certificate of the client?",
    ),
    Reason.FULL: ("the broker at {where} has no room for another connection", ""),
    Reason.STRANGER: (
        "what answers at {where} is no broker, or it ends the connection at once",
        "",
    ),
    Reason.SILENT: ("the broker at {where} takes the connection and says nothing within {s} s", ""),
    Reason.OTHER: ("the broker at {where} does not let the client in within {s} s", ""),
}
"""What is said of each reason, and what to change in the context, if that helps."""


def _why(address: BusAddress, failure: Failure) -> Unavailable:
    """The error of a broker that was not reached in time."""
    about = {
        "where": " or ".join(map(shown, address.urls)),
        "user": address.user,
        "password_file": address.password_file,
        "detail": failure.detail or "no reason is given",
        "s": f"{CONNECT_S:.0f}",
    }
    text, hint = (part.format(**about) for part in _TEXTS[failure.reason])
    return NotLetIn(text, hint) if hint else Unavailable(text)


def shown(url: str) -> str:
    """An address as it may be shown: without a name or a password in it."""
    scheme, mark, rest = url.rpartition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"


async def _look_at_any(urls: tuple[str, ...]) -> None:
    """Find a node of the broker that listens; raises ``unavailable`` when none does."""
    failure: Unavailable | None = None
    for url in urls:
        try:
            await _look(url)
        except Unavailable as error:
            failure = failure or error
        else:
            return
    raise failure or Unavailable("the broker has no address")


async def _look(url: str) -> None:
    """Connect to the broker's port and leave; raises ``unavailable``."""
    where = shown(url)
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        host, port = parts.hostname or "", parts.port or NATS_PORT
    except ValueError:
        raise NotLetIn(f"{where} is not the address of a broker") from None
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            await writer.wait_closed()
    except socket.gaierror:
        raise Unavailable(f"the name {host} of the broker at {where} does not resolve") from None
    except TimeoutError:
        text = f"the broker at {where} does not answer within {CONNECT_S:.0f} s"
        raise Unavailable(text) from None
    except OSError as error:
        why = f": {os.strerror(error.errno)}" if error.errno else ""
        raise Unavailable(f"nothing answers at {where}{why}") from None
