"""An application that asks for as much as it can, in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import uvloop
from kcm import Client, ClientContext, KcmError

from benchmarks.kill.living import SERVICE
from benchmarks.kill.talking import Lines, say

BATCH: Final = 256
LARGE: Final = 12
"""Records of 64 KiB that one request can have."""

BATCHES_AT_ONCE: Final = 16
SINGLES_AT_ONCE: Final = 300
DEADLINE_S: Final = 20.0
PATIENCE_S: Final = 0.1
"""Seconds after which a flood that reads no answers sends the next request."""


class Flood:
    """One kind of flood at a time."""

    def __init__(self, client: Client, tenant: str, hanging: str) -> None:
        self._client: Final = client
        self._tenant: Final = tenant
        self._hanging: Final = hanging
        self._tasks: list[asyncio.Task[None]] = []
        self._many: Final = [os.urandom(1024) for _ in range(BATCH)]
        self._large: Final = [os.urandom(65_536) for _ in range(LARGE)]
        self._records: list[bytes] = []
        self._answers = 0
        self._began = 0.0

    @property
    def rate(self) -> float:
        """Answers in a second, since the flood began."""
        return self._answers / max(time.monotonic() - self._began, 1e-3)

    async def prepare(self) -> None:
        """Encrypt what is decrypted again and again."""
        self._records = (await self._client.encrypt(self._tenant, SERVICE, self._many)).values

    def start(self, name: str) -> None:
        """Begin a flood."""
        self._answers, self._began = 0, time.monotonic()
        call, at_once = self._calls()[name]
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._again(call)) for _ in range(at_once)]

    async def stop(self) -> None:
        """End it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _calls(self) -> dict[str, tuple[Callable[[], Awaitable[object]], int]]:
        client, tenant, one = self._client, self._tenant, self._many[0]

        def encrypt(tenant: str, what: list[bytes]) -> Callable[[], Awaitable[object]]:
            return lambda: client.encrypt(tenant, SERVICE, what, deadline_s=DEADLINE_S)

        return {
            "encrypts": (encrypt(tenant, self._many), BATCHES_AT_ONCE),
            "decrypts": (
                lambda: client.decrypt(tenant, SERVICE, self._records, deadline_s=DEADLINE_S),
                BATCHES_AT_ONCE,
            ),
            "large": (encrypt(tenant, self._large), BATCHES_AT_ONCE),
            "singles": (encrypt(tenant, [one]), SINGLES_AT_ONCE),
            "unread": (self._unread, BATCHES_AT_ONCE),
            "unknown": (self._unknown, SINGLES_AT_ONCE),
            "hanging": (encrypt(self._hanging, [one]), SINGLES_AT_ONCE),
        }

    async def _unknown(self) -> None:
        """Ask for a tenant that does not exist, each time another one."""
        await self._client.encrypt(f"no-{os.urandom(4).hex()}", SERVICE, [self._many[0]])

    async def _unread(self) -> None:
        """Send a request, and soon wait for its answer no more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await self._client.encrypt(self._tenant, SERVICE, self._many)

    async def _again(self, call: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await call()
            except KcmError:
                await asyncio.sleep(0.05)
            self._answers += 1


async def serve() -> None:
    """Flood from a name to ``stop``, again and again, until standard input ends."""
    lines = await Lines.open()
    settings: dict[str, Any] | None = await lines.next()
    assert settings is not None
    context = ClientContext.load(Path(settings["context"]))
    async with Client.connect(context, settings["region"]) as client:
        flood = Flood(client, settings["tenant"], settings["hanging"])
        await flood.prepare()
        say(ready="flooder")
        while (line := await lines.next()) is not None:
            if line["do"] == "stop":
                await flood.stop()
            else:
                flood.start(line["do"])
            say(done=line["do"], rate=flood.rate)
        await flood.stop()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
