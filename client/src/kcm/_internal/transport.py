"""The port to the broker: one request, one reply. The tests implement it with a fake."""

from __future__ import annotations

import asyncio
import os
import socket
from asyncio import FIRST_COMPLETED
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, runtime_checkable
from urllib.parse import urlsplit

from kcm_runtime.config import BusAddress
from kcm_runtime.files.secret_file import SecretFileError
from kcm_runtime.nats.connect_failures import Failure, Reason
from kcm_runtime.nats.connection import Connection

from kcm._internal.client_context import NotLetIn
from kcm.errors import Unavailable, Unreached

CONNECT_S: Final = 5.0
"""Maximum seconds of one attempt to connect to a broker."""

NATS_PORT: Final = 4222
"""The default port of a broker's URL."""


class Transport(Protocol):
    """One connection to one region's broker.

    ``request`` raises ``KcmError``: ``unavailable``, ``deadline_exceeded`` or ``too_large``. The
    caller verifies the reply.
    """

    async def request(self, subject: str, body: bytes, timeout_s: float) -> bytes:
        """Send now, or fail; wait at most ``timeout_s`` seconds for the reply."""
        ...

    async def close(self) -> None:
        """Disconnect. No request may follow."""


@runtime_checkable
class Asking(Protocol):
    """A transport that also asks Cores for the data keys of what is to be decrypted."""

    async def decrypt(
        self, names: Sequence[bytes], subject: str, body: bytes, timeout_s: float
    ) -> bytes:
        """Do what ``Transport.request`` does; ``names`` are those of ``record.key_names``."""
        ...


Opener = Callable[[BusAddress, str], Awaitable[Transport]]
"""Connects to an address, under a name that the broker shows."""


async def open_nats(address: BusAddress, name: str) -> Transport:
    """Connect to NATS; raises ``unavailable``, at once if no program listens there.

    Raises ``NotLetIn`` if the context has to be changed. The client library retries without end. So
    this function first tests the port, and reports the library's last failure: after the timeout,
    or as soon as every node rejects the client.
    """
    await _look_at_any(address.urls)
    # An old broker must not prevent a kill. The region's components check its version.
    connection = Connection(address.model_copy(update={"allow_old_broker": True}), name)
    starting = asyncio.ensure_future(connection.start())
    rejected = asyncio.ensure_future(connection.attempts.rejected.wait())
    try:
        await asyncio.wait({starting, rejected}, timeout=CONNECT_S, return_when=FIRST_COMPLETED)
        if starting.done():
            await starting
            return connection
    except SecretFileError as error:
        raise NotLetIn(str(error), "the context names this file") from None
    except asyncio.CancelledError:
        await _given_up(connection, starting)  # it may be established already
        raise
    finally:
        rejected.cancel()
    await _given_up(connection, starting)
    every_node = connection.attempts.rejected.is_set()
    raise _why(address, connection.failure or Failure(Reason.SILENT), final=every_node)


async def _given_up(connection: Connection, starting: asyncio.Future[None]) -> None:
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await connection.close()


async def why_not(address: BusAddress, connection: Connection) -> Unavailable:
    """Return why a connection is not established yet, as far as the client can detect it."""
    try:
        await _look_at_any(address.urls)
    except Unavailable as error:
        return error
    every_node = connection.attempts.rejected.is_set()
    return _why(address, connection.failure or Failure(Reason.SILENT), final=every_node)


_TEXTS: Final = {
    Reason.LOGIN: (
        "the broker at {where} rejects {user}: {rejected}",
        "the context names {login_file}, the file of the login",
    ),
    Reason.CERTIFICATE: (
        "the certificate of the broker at {where} is not trusted: {detail}",
        "{authority} names the CA's certificate; the address must match the name in it",
    ),
    Reason.UNENCRYPTED: (
        "the broker at {where} offers no TLS, but the context requires it with tls://",
        "check the port; nothing secret was sent. nats:// is for a broker without TLS",
    ),
    Reason.TLS: (
        "the broker at {where} and this client do not agree on TLS: {detail}",
        "check the port, and whether the broker requires a client certificate",
    ),
    Reason.FULL: ("the broker at {where} has reached its maximum number of connections", ""),
    Reason.STRANGER: (
        "the server at {where} is not a broker, or it closes the connection at once",
        "",
    ),
    Reason.SILENT: ("the broker at {where} accepts the connection but is silent for {s} s", ""),
    Reason.OTHER: ("the broker at {where} does not admit the client within {s} s", ""),
}
"""The text for each reason, and a hint if a change of the context helps."""


def _why(address: BusAddress, failure: Failure, *, final: bool) -> Unavailable:
    """Return the error for a broker that was not reached in time.

    It is ``NotLetIn`` only if it is ``final``: one node that rejects may be hostile or not up to
    date, and another one may admit the client.
    """
    about = {
        "where": " or ".join(map(shown, address.urls)),
        "user": address.user or "these credentials",
        "rejected": (
            "no such user, or another password"
            if address.credentials is None
            else "they have expired, were revoked, or are for another broker"
        ),
        "authority": "SSL_CERT_FILE" if address.ca is None else "`ca` in the context",
        "login_file": address.login_file,
        "detail": failure.detail or "no reason given",
        "s": f"{CONNECT_S:.0f}",
    }
    text, hint = (part.format(**about) for part in _TEXTS[failure.reason])
    if hint and final:
        return NotLetIn(text, hint)
    return Unreached(f"{text}; not every node says so" if hint else text)


def shown(url: str) -> str:
    """Return an address without the user name and password in it."""
    scheme, mark, rest = url.rpartition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"


async def _look_at_any(urls: tuple[str, ...]) -> None:
    """Find a node of the broker that listens; raises ``unavailable`` if none does."""
    failure: Unavailable | None = None
    for url in urls:
        try:
            await _look(url)
        except Unavailable as error:
            failure = failure or error
        else:
            return
    raise failure or Unreached("the broker has no address")


async def _look(url: str) -> None:
    """Connect to the broker's port and disconnect; raises ``unavailable``."""
    where = shown(url)
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        host, port = parts.hostname or "", parts.port or NATS_PORT
    except ValueError:
        text = f"{where} is not the address of a broker"
        raise NotLetIn(text, "correct the region's url in the context") from None
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            await writer.wait_closed()
    except socket.gaierror:
        raise Unreached(f"the name {host} of the broker at {where} does not resolve") from None
    except TimeoutError:
        text = f"the broker at {where} does not reply within {CONNECT_S:.0f} s"
        raise Unreached(text) from None
    except OSError as error:
        why = f": {os.strerror(error.errno)}" if error.errno else ""
        raise Unreached(f"no program listens at {where}{why}") from None
