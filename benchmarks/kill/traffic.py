"""Continuous clients of one region, in their own process: of the one who is killed, and of others.

The clock of ``last`` is the machine's, which every process here shares.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import uvloop
from kcm import Client, ClientContext
from kcm_devsystem.demo.traffic import Stream
from kcm_runtime.clock import SystemClock
from kcm_schemas.codes import Code, KcmError

from benchmarks.kill.living import SERVICE, tenant_name
from benchmarks.kill.talking import Lines, say

RECORDS: Final = 16
"""Records of a request of the others."""

REFUSALS: Final = 5
"""Refusals of every client until the tenant counts as dark here."""

POLL_S: Final = 0.005

DARK: Final = (Code.TENANT_KILLED.value, Code.TENANT_UNAVAILABLE.value)


@dataclass(slots=True)
class Paced(Stream):
    """A client that encrypts, decrypts, and waits for a moment."""

    pause_s: float = 0.0

    async def _ask(self, plaintexts: list[bytes]) -> None:
        await asyncio.sleep(self.pause_s)
        await Stream._ask(self, plaintexts)  # noqa: SLF001 - slots make a class that super() misses


class Victim:
    """Clients of one tenant, asking all the time."""

    def __init__(self, client: Client, tenant: str, streams: int, pause_s: float) -> None:
        clock = SystemClock()
        self.tenant: Final = tenant
        self._streams: Final = [
            Paced(client, tenant, SERVICE, clock, pause_s=pause_s) for _ in range(streams)
        ]
        self._stop: Final = asyncio.Event()
        self._tasks: Final = [asyncio.ensure_future(one.run(self._stop)) for one in self._streams]

    async def served(self, since: float) -> None:
        """Wait until every client was answered since then."""
        while not all(  # noqa: ASYNC110 - traffic tells nobody
            stream.last_success > since for stream in self._streams
        ):
            await asyncio.sleep(POLL_S)

    async def dark(self) -> dict[str, Any]:
        """Wait until every client is refused, and say when the last one was answered."""
        before = [self._refused(stream) for stream in self._streams]
        while not all(  # noqa: ASYNC110 - see above
            self._refused(stream) >= count + REFUSALS
            for stream, count in zip(self._streams, before, strict=True)
        ):
            await asyncio.sleep(POLL_S)
        return {
            "last": max(stream.last_success for stream in self._streams),
            "wrong": sum(stream.wrong for stream in self._streams),
        }

    async def end(self) -> None:
        """Stop asking."""
        self._stop.set()
        await asyncio.gather(*self._tasks)

    @staticmethod
    def _refused(stream: Stream) -> int:
        return sum(stream.codes[code] for code in DARK)


class Others:
    """Requests of tenants drawn at random, at a rate."""

    def __init__(self, client: Client, tenants: int, pause_s: float) -> None:
        self._client: Final = client
        self._tenants: Final = tenants
        self._pause_s: Final = pause_s
        self.victim = ""
        self.answers = 0
        self.codes: Final[Counter[str]] = Counter()

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await asyncio.sleep(self._pause_s)
            name = tenant_name(random.randrange(self._tenants))
            if name == self.victim:
                continue
            try:
                done = await self._client.encrypt(name, SERVICE, [bytes(256)] * RECORDS)
                _ = done.values
                self.answers += 1
            except KcmError as error:
                if name != self.victim:
                    self.codes[error.code.value] += 1


async def serve() -> None:
    """Do as told until standard input ends."""
    lines = await Lines.open()
    settings = await lines.next()
    assert settings is not None
    context = ClientContext.load(settings["context"])
    async with Client.connect(context, settings["region"]) as client:
        others = Others(client, settings["tenants"], settings["pause_s"])
        background = asyncio.ensure_future(others.run())
        say(ready=settings["region"])
        victim: Victim | None = None
        try:
            while (told := await lines.next()) is not None:
                victim = await _do(told, client, others, victim, settings)
        finally:
            background.cancel()
            if victim is not None:
                await victim.end()


async def _do(
    told: dict[str, Any],
    client: Client,
    others: Others,
    victim: Victim | None,
    settings: dict[str, Any],
) -> Victim | None:
    match told["do"]:
        case "serve":
            if victim is None or victim.tenant != told["tenant"]:
                if victim is not None:
                    await victim.end()
                others.victim = told["tenant"]
                victim = Victim(
                    client, told["tenant"], settings["streams"], settings["victim_pause_s"]
                )
            await victim.served(SystemClock().elapsed())
            say(serves=victim.tenant)
        case "dark" if victim is not None:
            say(**await victim.dark())
        case "others":
            say(answers=others.answers, codes=dict(others.codes))
    return victim


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
