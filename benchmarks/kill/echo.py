"""One subscriber of the bare broadcast, in its own process: it acknowledges at once.

What a broadcast and an acknowledgement cost on this topology with nobody behind them: the same
client library, accounts and links as a hold and its receipt have, and messages of their sizes.
"""

from __future__ import annotations

import asyncio
from typing import Final

import uvloop
from kcm_runtime.config import BusAddress
from kcm_schemas import subjects
from nats.aio.msg import Msg

from benchmarks.bare import connected, written
from benchmarks.kill.talking import Lines, say

PROBE: Final = f"{subjects.CTL}.probe"
"""What the backbone carries under the name of the region it comes from, and no instance hears."""

TOLD: Final = f"{PROBE}.*.told.*"
HEARD: Final = f"{PROBE}.*.heard.*"


async def serve() -> None:
    """Acknowledge until standard input ends."""
    lines = await Lines.open()
    settings = await lines.next()
    assert settings is not None
    body = settings["name"].encode().ljust(settings["size"])
    answer = f"{PROBE}.{settings['region']}.heard"
    address = BusAddress.model_validate(settings["address"])
    async with connected(address) as client:

        async def receive(message: Msg) -> None:
            await client.publish(f"{answer}.{message.subject.rpartition('.')[2]}", body)

        await client.subscribe(TOLD, cb=receive)
        await written(client)
        say(ready=settings["name"])
        await lines.next()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
