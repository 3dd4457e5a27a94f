"""In a namespace of its own a cut link loses packets; outside of one, nobody's packets are lost."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from tests.chaos import packets
from tests.chaos.links import Links
from tests.chaos.proxy import Mode

ROOT = Path(__file__).resolve().parents[2]

EXPERIMENT = """
import asyncio
from tests.chaos.links import Links
from tests.chaos.packets import Packets
from tests.chaos.proxy import LOOPBACK, Mode

async def main():
    async def echo(reader, writer):
        while data := await reader.read(64):
            writer.write(data)
    links = Links(Packets.inside())
    server = await asyncio.start_server(echo, LOOPBACK, 0)
    target = server.sockets[0].getsockname()[1]
    port = await asyncio.to_thread(links.detour, "a", "b", target)
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    async def passes():
        writer.write(b"x")
        return await asyncio.wait_for(reader.readexactly(1), 0.5)
    print(await passes())
    await asyncio.to_thread(links.set, lambda link: True, Mode.DROP)
    try:
        await passes()
    except TimeoutError:
        print("lost")
    await asyncio.to_thread(links.set, lambda link: True, Mode.OPEN)
    print(await asyncio.wait_for(reader.readexactly(1), 30))
    writer.transport.abort()
    await asyncio.to_thread(links.close)

asyncio.run(main())
"""


def test_what_is_sent_over_a_cut_link_is_lost_and_comes_again_after_the_healing():
    if not packets.possible():
        # Then nothing of it is used: proxies swallow, as the next test shows.
        assert packets.Packets.inside() is None
        return
    unshare = packets.unsharing("unshare")
    done = subprocess.run(
        [*unshare, sys.executable, "-c", EXPERIMENT],
        cwd=ROOT,
        env={**os.environ, packets.INSIDE: "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["b'x'", "lost", "b'x'"]


async def test_outside_of_a_namespace_a_proxy_swallows_instead():
    links = Links(packets.Packets.inside())
    try:
        await asyncio.to_thread(links.detour, "a", "b", 1)
        assert await asyncio.to_thread(links.set, lambda _: True, Mode.DROP) == 1
        assert links.mode(("a", "b")) is Mode.SWALLOW
    finally:
        await asyncio.to_thread(links.close)
