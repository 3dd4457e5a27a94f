"""The port to the broker: ask one question, get one answer. A fake in the tests implements it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from kcm_bus.config import BusAddress
from kcm_bus.connection import Connection
from kcm_crypto.secretfile import SecretFileError

from kcm.context import ContextError
from kcm.errors import Unavailable

CONNECT_S: Final = 5.0
"""Seconds to wait for a broker: one attempt to connect takes no longer."""


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
    """Connect to NATS; raises ``unavailable`` when that takes more than ``CONNECT_S`` seconds."""
    connection = Connection(address, name)
    try:
        await asyncio.wait_for(connection.start(), CONNECT_S)
    except TimeoutError:
        await connection.close()
        raise Unavailable(f"no connection to the broker at {address.url}") from None
    except SecretFileError as error:
        raise ContextError(str(error), "the context names this file") from None
    return connection
