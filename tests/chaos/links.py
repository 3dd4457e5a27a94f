"""The links between brokers, each through a proxy of its own, in a thread of their own.

A link has two names: the server that connects and the one that it connects to. Their thread goes
on when the harness is busy, so a busy harness does not look like a slow network.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from tests.chaos.packets import Packets
from tests.chaos.proxy import Mode, Proxy

Link = tuple[str, str]


class Links:
    """All proxies of a system; to be closed."""

    def __init__(self, packets: Packets | None = None) -> None:
        self._packets = packets
        self._dropped: set[int] = set()
        self._proxies: dict[Link, Proxy] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="links", daemon=True)
        self._thread.start()

    def detour(self, source: str, target: str, port: int) -> int:
        """The port by which ``source`` reaches ``target``, which listens on ``port``."""

        async def lead() -> int:
            proxy = self._proxies.get((source, target))
            if proxy is None:
                proxy = self._proxies[(source, target)] = Proxy(port)
                await proxy.start()
            proxy.target = port
            return proxy.port

        return self._do(lead())

    def set(self, concerns: Callable[[Link], bool], mode: Mode) -> int:
        """Cut or heal the links that ``concerns`` names; returns how many."""

        async def apply() -> int:
            chosen = [proxy for link, proxy in self._proxies.items() if concerns(link)]
            self._lose(chosen, mode)
            for proxy in chosen:
                proxy.set(self._at_the_proxy(mode))
            return len(chosen)

        return self._do(apply())

    def mode(self, link: Link) -> Mode:
        """What the proxy of a link does now."""
        return self._proxies[link].mode

    def close(self) -> None:
        async def end() -> None:
            await asyncio.gather(*(proxy.close() for proxy in self._proxies.values()))

        self._do(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _at_the_proxy(self, mode: Mode) -> Mode:
        if mode is not Mode.DROP:
            return mode
        return Mode.SWALLOW if self._packets is None else Mode.OPEN

    def _lose(self, chosen: list[Proxy], mode: Mode) -> None:
        if self._packets is None:
            return
        ports = {proxy.port for proxy in chosen}
        if mode is Mode.DROP:
            self._packets.drop(ports)
            self._dropped |= ports
        elif ports & self._dropped:
            self._packets.let_through(ports & self._dropped)
            self._dropped -= ports

    def _do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
