"""The port to the broker: ask one question, get one answer. A fake in the tests implements it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Final, Protocol
from urllib.parse import urlsplit

from kcm_bus.config import BusAddress
from kcm_bus.connection import Connection
from kcm_crypto.secretfile import SecretFileError

from kcm.context import ContextError
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

    The client library tries for ever and tells nobody why, so who listens is looked at first: what
    then remains of the reasons is the login.
    """
    await _look_at_any(address.urls)
    # A kill is not refused because the broker is old: that is its services' business, and told.
    connection = Connection(address.model_copy(update={"allow_old_broker": True}), name)
    try:
        await asyncio.wait_for(connection.start(), CONNECT_S)
    except TimeoutError:
        await connection.close()
        raise Unavailable(
            f"the broker at {address.url} does not let the user {address.user} in within "
            f"{CONNECT_S:.0f} s: a wrong password, or the broker hangs"
        ) from None
    except SecretFileError as error:
        raise ContextError(str(error), "the context names this file") from None
    return connection


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
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or NATS_PORT
    except ValueError:
        raise ContextError(f"{url} is not the address of a broker") from None
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            await writer.wait_closed()
    except socket.gaierror:
        raise Unavailable(f"the name {host} of the broker at {url} does not resolve") from None
    except TimeoutError:
        text = f"the broker at {url} does not answer within {CONNECT_S:.0f} s"
        raise Unavailable(text) from None
    except OSError as error:
        why = f": {os.strerror(error.errno)}" if error.errno else ""
        raise Unavailable(f"nothing answers at {url}{why}") from None
