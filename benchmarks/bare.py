"""A bare connection to an account of a broker: the client library alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
from kcm_runtime.config import BusAddress
from kcm_runtime.nats.login import Login
from nats.aio.client import Client as Nats


@asynccontextmanager
async def connected(address: BusAddress) -> AsyncIterator[Nats]:
    """Enter an account for a while."""
    client = await nats.connect(list(address.urls), **Login(address).options())
    try:
        yield client
    finally:
        await client.close()


async def written(client: Nats) -> None:
    """Wait until the broker has read all: the first PING goes before what waits to be written."""
    await client.flush()
    await client.flush()
