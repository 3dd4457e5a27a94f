"""A bare NATS service in its own process: what a request costs with nobody behind it.

``python -m benchmarks.echo URL USER PASSWORD_FILE`` answers ``bench.echo.<size>`` with that many
bytes, says ``ready`` and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Final

import nats
import uvloop
from nats.aio.msg import Msg

SUBJECT: Final = "bench.echo"


async def serve(url: str, user: str, password: str) -> None:
    """Answer until standard input ends."""
    client = await nats.connect(url, user=user, password=password)

    async def answer(message: Msg) -> None:
        await message.respond(bytes(int(message.subject.rpartition(".")[2])))

    await client.subscribe(f"{SUBJECT}.*", cb=answer)
    await client.flush()
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await client.drain()


if __name__ == "__main__":
    where, who, file = sys.argv[1:4]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(where, who, Path(file).read_text().strip()))
