"""The proxy passes bytes on, and cuts in each of its three ways."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from tests.chaos.links import Links
from tests.chaos.proxy import LOOPBACK, Mode, Proxy


@asynccontextmanager
async def echoing():
    async def echo(reader, writer):
        while data := await reader.read(1024):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, LOOPBACK, 0)
    proxy = Proxy(server.sockets[0].getsockname()[1])
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def connected(port):
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def echoed(reader, writer, data=b"x"):
    writer.write(data)
    return await asyncio.wait_for(reader.readexactly(len(data)), 5)


async def is_gone(reader):
    try:
        return await asyncio.wait_for(reader.read(1), 5) == b""
    except ConnectionError:
        return True


async def test_what_is_open_passes_everything():
    async with echoing() as proxy, connected(proxy.port) as link:
        assert await echoed(*link, b"y" * 300_000) == b"y" * 300_000


async def test_refusing_resets_what_is_open_and_what_is_new():
    async with echoing() as proxy, connected(proxy.port) as link:
        assert await echoed(*link) == b"x"
        proxy.set(Mode.REFUSE)
        assert await is_gone(link[0])
        async with connected(proxy.port) as fresh:
            assert await is_gone(fresh[0])
        proxy.set(Mode.OPEN)
        async with connected(proxy.port) as healed:
            assert await echoed(*healed) == b"x"


@pytest.mark.parametrize("mode", [Mode.SWALLOW, Mode.STALL])
async def test_a_silent_cut_passes_nothing(mode):
    async with echoing() as proxy, connected(proxy.port) as link:
        assert await echoed(*link) == b"x"
        proxy.set(mode)
        async with connected(proxy.port) as fresh:
            for reader, writer in (link, fresh):
                writer.write(b"late")
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(reader.read(1), 0.2)
            proxy.set(Mode.OPEN)
            for reader, _ in (link, fresh):
                if mode is Mode.STALL:
                    assert await asyncio.wait_for(reader.readexactly(4), 5) == b"late"
                else:
                    assert await is_gone(reader)


async def test_links_are_cut_by_name_and_keep_their_port():
    async with echoing() as proxy:
        links = Links()
        try:
            port = await asyncio.to_thread(links.detour, "eu", "backbone", 1)
            assert await asyncio.to_thread(links.detour, "eu", "backbone", proxy.port) == port
            other = await asyncio.to_thread(links.detour, "us", "backbone", proxy.port)
            cut = await asyncio.to_thread(links.set, lambda link: link[0] == "eu", Mode.REFUSE)
            assert cut == 1
            async with connected(port) as dead, connected(other) as alive:
                assert await is_gone(dead[0])
                assert await echoed(*alive) == b"x"
        finally:
            await asyncio.to_thread(links.close)
