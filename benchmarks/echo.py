"""A bare NATS service in its own process: what a request costs with nobody behind it.

``python -m benchmarks.echo ADDRESS`` answers ``bench.echo.<size>`` with that many bytes, says
``ready`` and ends with its standard input. The address is JSON.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

import uvloop
from kcm_runtime.config import BusAddress
from nats.aio.msg import Msg

from benchmarks.bare import connected, written

SUBJECT: Final = "bench.echo"


async def serve(address: BusAddress) -> None:
    """Answer until standard input ends."""
    async with connected(address) as client:

        async def answer(message: Msg) -> None:
            await message.respond(bytes(int(message.subject.rpartition(".")[2])))

        await client.subscribe(f"{SUBJECT}.*", cb=answer)
        await written(client)
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await client.drain()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(BusAddress.model_validate_json(sys.argv[1])))
