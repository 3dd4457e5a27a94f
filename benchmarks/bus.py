"""End to end over NATS: a client, a broker, a Gateway and its Cores, each in its own process.

Bare is a NATS service that does nothing, in its own process on the same broker, asked with messages
of the same sizes by the same client library. *In clear* is the SDK without an application's key,
as a plain application is served: the difference is what sessions, seals and grants cost. Times are
wall clock, one request after another: what a caller waits.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kcm import Admin, Client, ClientContext
from kcm._internal import statements
from kcm._internal.transport import open_nats
from kcm_devsystem import system
from kcm_devsystem.applications import allow_everything
from kcm_devsystem.broker_users import visitors_address
from kcm_devsystem.root_keys import RootKeys
from kcm_runtime.config import BusAddress
from nats.aio.client import Client as Nats

from benchmarks import bare
from benchmarks.echo import SUBJECT
from benchmarks.measure import BASELINE, Case, wall

REGION: Final = "eu-de"
TENANT: Final = "acme"
SERVICE: Final = "records"

SIZE: Final = 256
"""Bytes of a record."""

BATCH: Final = 256
"""Records of a batch."""

ECHO_TARGET: Final = 0.4
"""A single encrypt takes at most 2.5 times as long as an echo: the ratio of speeds is this."""

SEALED_TARGET: Final = 0.85
"""Batches under a seal, as a part of the speed of those in clear."""

BATCH_TARGET: Final = 50.0
"""Records a second in batches, as a multiple of those in single requests one after another."""

_ENCODING: Final = 64
"""Bytes of a message beside its columns, about."""


@dataclass(frozen=True, slots=True)
class Bus:
    """Connections to a running system and to the echo on its broker."""

    client: Client
    plain: Client
    """Without a session and without a seal."""
    echo: Nats


@contextmanager
def running() -> Iterator[Path]:
    """A development system of one region; yields its clients' context file."""
    directory = Path(tempfile.mkdtemp(prefix="kcm-bench-"))
    try:
        options = system.Options(directory, regions=(REGION,), die_with_parent=True, visitor=True)
        try:
            yield system.up(options).context
        finally:
            system.down(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@asynccontextmanager
async def connected(context_file: Path) -> AsyncIterator[Bus]:
    """Make a tenant, start the echo, connect to both."""
    context = ClientContext.load(context_file)
    await allow_everything(context, context_file.parent, plain=True)
    address = visitors_address(context, context_file.parent, REGION)
    async with Admin.open(context) as admin:
        await _make_tenant(admin, RootKeys(context_file.parent))
    async with (
        _echoing(address),
        Client.connect(context, REGION) as client,
        _in_clear(address) as plain,
        bare.connected(address) as echo,
    ):
        yield Bus(client, plain, echo)


@asynccontextmanager
async def _in_clear(address: BusAddress) -> AsyncIterator[Client]:
    transport = await open_nats(address, "benchmark")
    client = Client(transport, REGION)
    try:
        yield client
    finally:
        await client.close()


async def cases(bus: Bus, calls: int) -> list[Case]:
    """Singles and batches: beside the echo, beside requests in clear, beside each other."""
    return [*await _beside_echo(bus, calls), *await _beside_clear(bus, calls)]


async def _beside_clear(bus: Bus, calls: int) -> list[Case]:
    one, many = os.urandom(SIZE), [os.urandom(SIZE) for _ in range(BATCH)]
    record = await bus.client.encrypt_one(TENANT, SERVICE, one)
    records = (await bus.client.encrypt(TENANT, SERVICE, many)).values

    def single(client: Client, operation: str) -> Callable[[], Awaitable[object]]:
        if operation == "encrypt":
            return lambda: client.encrypt_one(TENANT, SERVICE, one)
        return lambda: client.decrypt_one(TENANT, SERVICE, record)

    def batch(client: Client, operation: str) -> Callable[[], Awaitable[object]]:
        async def ask() -> None:
            if operation == "encrypt":
                _ = (await client.encrypt(TENANT, SERVICE, many)).values
            else:
                _ = (await client.decrypt(TENANT, SERVICE, records)).values

        return ask

    kinds = (
        (f"one record of {SIZE} B", calls, single),
        (f"{BATCH} records of {SIZE} B", max(1, calls // 4), batch),
    )
    return [
        Case(
            f"{operation} {title}, sealed beside in clear",
            "request",
            {
                "in clear": wall(count, 1, work(bus.plain, operation)),
                "sealed": wall(count, 1, work(bus.client, operation)),
            },
            {"sealed": SEALED_TARGET} if work is batch else {},
            baseline="in clear",
        )
        for title, count, work in kinds
        for operation in ("encrypt", "decrypt")
    ]


async def _beside_echo(bus: Bus, calls: int) -> list[Case]:
    client = bus.client
    one, many = os.urandom(SIZE), [os.urandom(SIZE) for _ in range(BATCH)]
    record = await client.encrypt_one(TENANT, SERVICE, one)
    records = (await client.encrypt(TENANT, SERVICE, many)).values

    async def encrypt_batch() -> None:
        _ = (await client.encrypt(TENANT, SERVICE, many)).values

    async def decrypt_batch() -> None:
        _ = (await client.decrypt(TENANT, SERVICE, records)).values

    def encrypt_one() -> Awaitable[object]:
        return client.encrypt_one(TENANT, SERVICE, one)

    def decrypt_one() -> Awaitable[object]:
        return client.decrypt_one(TENANT, SERVICE, record)

    small, large = len(record), sum(map(len, records))
    batch_calls = max(1, calls // 4)
    return [
        Case(
            f"one record of {SIZE} B over the bus",
            "request",
            {
                BASELINE: wall(calls, 1, _echo(bus.echo, SIZE + _ENCODING, small + _ENCODING)),
                "encrypt_one": wall(calls, 1, encrypt_one),
                "decrypt_one": wall(calls, 1, decrypt_one),
            },
            {"encrypt_one": ECHO_TARGET},
        ),
        Case(
            f"{BATCH} records of {SIZE} B over the bus",
            "request",
            {
                BASELINE: wall(batch_calls, 1, _echo(bus.echo, BATCH * SIZE, large)),
                "encrypt": wall(batch_calls, 1, encrypt_batch),
                "decrypt": wall(batch_calls, 1, decrypt_batch),
            },
        ),
        Case(
            f"batches of {BATCH} beside single requests",
            "record",
            {
                "encrypt_one": wall(calls, 1, encrypt_one),
                "encrypt": wall(batch_calls, BATCH, encrypt_batch),
            },
            {"encrypt": BATCH_TARGET},
            baseline="encrypt_one",
        ),
        Case(
            f"batches of {BATCH} beside single requests",
            "record",
            {
                "decrypt_one": wall(calls, 1, decrypt_one),
                "decrypt": wall(batch_calls, BATCH, decrypt_batch),
            },
            {"decrypt": BATCH_TARGET},
            baseline="decrypt_one",
        ),
    ]


def _echo(client: Nats, request: int, reply: int) -> Callable[[], Awaitable[object]]:
    body, subject = bytes(request), f"{SUBJECT}.{reply}"
    return lambda: client.request(subject, body, timeout=5)


async def _make_tenant(admin: Admin, keys: RootKeys) -> None:
    uri = await asyncio.to_thread(keys.create, f"{TENANT}-root", "softkey")
    link = statements.link(admin.identity, f"{TENANT}-root", uri=uri, model="byok")
    tenant = statements.tenant(
        admin.identity, TENANT, link=f"{TENANT}-root", regions=[REGION], region_quorum="all"
    )
    service = statements.service(admin.identity, TENANT, SERVICE)
    await admin.put_link(REGION, link)
    for kind, statement in (("tenant", tenant), ("service", service)):
        await admin.put(REGION, kind, statement)


@asynccontextmanager
async def _echoing(address: BusAddress) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.echo",
        address.model_dump_json(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        if await process.stdout.readline() != b"ready\n":
            raise RuntimeError("the echo did not start")
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
