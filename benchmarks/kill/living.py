"""A system of real processes for a while, with tenants, and helpers in processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from kcm import Admin, Client, ClientContext
from kcm._internal import statements
from kcm.cli.signals import undisturbed
from kcm_broker.roles import Account
from kcm_devsystem import system
from kcm_devsystem.applications import allow_everything
from kcm_devsystem.broker_users import visitors_address
from kcm_devsystem.root_keys import RootKeys
from kcm_runtime.config import BusAddress

REGIONS: Final = ("eu-de", "us-east", "ap-south")
SERVICE: Final = "records"

MAKING_MAX: Final = 4
"""Tenants made, or opened, at once."""

END_S: Final = 5.0
"""Seconds that a helper gets to end after its standard input did."""


@dataclass(frozen=True, slots=True)
class System:
    """A system that runs."""

    options: system.Options
    context: ClientContext
    context_file: Path

    @property
    def regions(self) -> tuple[str, ...]:
        """Its regions; the first one is where kills begin."""
        return self.options.regions

    def control(self, region: str) -> BusAddress:
        """The account of a region's broker in which holds and receipts travel."""
        return visitors_address(self.context, self.options.directory, region, Account.CONTROL)


@contextmanager
def running(options: system.Options) -> Iterator[System]:
    """Start a system in a directory of its own; everything is gone afterwards, however it ends."""
    directory = Path(tempfile.mkdtemp(prefix="kcm-bench-"))
    placed = replace(options, directory=directory, die_with_parent=True, visitor=True)
    try:
        try:
            started = system.up(placed)
            context = ClientContext.load(started.context)
            asyncio.run(allow_everything(context, directory, plain=True))
            yield System(placed, context, started.context)
        finally:
            with undisturbed():
                system.down(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def tenant_name(number: int) -> str:
    """The name of one of many."""
    return f"t{number:05}"


async def make_links(at: System, admin: Admin, count: int) -> list[Path]:
    """Links to as many softkeys, in every region; returns the files of their states."""
    keys, states = RootKeys(at.options.directory), []
    for number in range(count):
        uri = keys.create(f"root-{number}", "softkey")
        link = statements.link(admin.identity, f"link-{number}", uri=uri, model="byok")
        for region in at.regions:
            await admin.put_link(region, link)
        states.append(Path(uri.partition(":")[2]) / "state")
    return states


async def make_tenants(at: System, admin: Admin, count: int, links: int) -> float:
    """Tenants with one service, in every region; returns the seconds that it took."""

    async def one(number: int) -> None:
        name = tenant_name(number)
        tenant = statements.tenant(
            admin.identity,
            name,
            link=f"link-{number % links}",
            regions=list(at.regions),
            region_quorum="all",
        )
        service = statements.service(admin.identity, name, SERVICE)

        async def put(region: str) -> None:
            await admin.put(region, "tenant", tenant)
            await admin.put(region, "service", service)

        await asyncio.gather(*(put(region) for region in at.regions))

    return await _timed(one, count)


async def open_tenants(at: System, count: int, passes: int) -> float:
    """Ask every Gateway for a key of everybody, so often that most Cores come to have it open."""
    took = 0.0
    for region in at.regions:
        async with Client.connect(at.context, region) as client:

            async def one(number: int, client: Client = client) -> None:
                for _ in range(passes):
                    done = await client.encrypt(tenant_name(number), SERVICE, [b""], deadline_s=30)
                    _ = done.values

            took += await _timed(one, count)
    return took


async def _timed(one: Callable[[int], Awaitable[None]], count: int) -> float:
    started, todo = time.monotonic(), iter(range(count))

    async def worker() -> None:
        for number in todo:
            await one(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(MAKING_MAX):
            group.create_task(worker())
    return time.monotonic() - started


class Helper:
    """A program of this package in a process of its own: JSON in lines, both ways."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process: Final = process

    async def tell(self, **what: Any) -> None:
        """Send it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        await self._process.stdin.drain()

    async def hear(self, timeout_s: float) -> dict[str, Any]:
        """Its next line."""
        assert self._process.stdout is not None
        async with asyncio.timeout(timeout_s):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("a helper of the benchmark ended")
        heard: dict[str, Any] = json.loads(line)
        return heard

    async def ask(self, timeout_s: float, **what: Any) -> dict[str, Any]:
        """Send it a line and wait for the next one."""
        await self.tell(**what)
        return await self.hear(timeout_s)

    async def end(self) -> None:
        """End it: by the end of its input, or else by force."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(END_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def helpers(programs: Sequence[tuple[str, dict[str, Any]]]) -> AsyncIterator[list[Helper]]:
    """Start ``python -m MODULE`` for each, with its settings as a first line, and wait for all.

    They are in a session of their own: a Ctrl-C is for this process, which ends them.
    """
    started: list[Helper] = []
    try:
        for module, settings in programs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
            started.append(Helper(process))
            await started[-1].tell(**settings)
        for helper in started:
            await helper.hear(60)
        yield started
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*(helper.end() for helper in started))
