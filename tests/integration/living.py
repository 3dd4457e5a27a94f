"""A living system for integration tests, and the hands to do to it what no client would."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self

from kcm import Admin, ClientContext
from kcm._internal import statements
from kcm._internal.kills import Kills
from kcm_broker.roles import Account
from kcm_devsystem import processes, state, system
from kcm_devsystem.applications import allow_everything
from kcm_devsystem.broker_users import visitors_address
from kcm_devsystem.configs import ready_file
from kcm_devsystem.instances import start_member
from kcm_devsystem.processes import ReadyFile
from kcm_devsystem.root_keys import RootKeys
from kcm_devsystem.state import Entry
from kcm_runtime.config import BusAddress
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.provision import provision_region
from kcm_schemas import data_subjects
from kcm_schemas.codec import encode
from kcm_schemas.data import (
    DecryptReply,
    DecryptRequest,
    EncryptReply,
    EncryptRequest,
    decode_reply,
)

EU, US = "eu-de", "us-east"
_names = itertools.count(1)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


ASK_AGAIN_S = 0.02
"""Seconds between two questions at first; a wait that takes long is asked about less often."""

ASK_AGAIN_MAX_S = 0.5


async def eventually(holds: Callable[[], Awaitable[bool]], within_s: float = 20.0) -> None:
    """Wait for a condition, by asking again until it holds."""
    began = time.monotonic()
    while not await holds():
        waited_s = time.monotonic() - began
        assert waited_s < within_s, "the condition did not come true in time"
        pause_s = min(max(ASK_AGAIN_S, waited_s / 10), ASK_AGAIN_MAX_S)
        await asyncio.sleep(min(pause_s, within_s - waited_s))


@asynccontextmanager
async def connected(address: BusAddress, name: str = "test") -> AsyncIterator[Connection]:
    connection = Connection(address, name)
    await connection.start()
    try:
        yield connection
    finally:
        await connection.close()


class Living:
    """One development system."""

    def __init__(self, options: system.Options, state: system.SystemState) -> None:
        self.options = options
        self.directory: Path = options.directory
        self.context = ClientContext.load(state.context)
        self.keys = RootKeys(options.directory)

    @classmethod
    @contextmanager
    def started(cls, *, allow: bool = True, **settings: Any) -> Iterator[Self]:
        """A system in a directory of its own, which is removed afterwards.

        With ``allow``, applications may ask for every tenant.
        """
        directory = Path(tempfile.mkdtemp(prefix="kcm-test-")) / "system"
        options = system.Options(directory, die_with_parent=True, visitor=True, **settings)
        made = cls(options, system.up(options))
        try:
            if allow:
                made.allow()
            yield made
        finally:
            system.down(directory, wipe=True)

    def allow(self) -> None:
        """Let the context's application, and clients without a key, ask for every tenant."""
        asyncio.run(allow_everything(self.context, self.directory, plain=True))

    def app(self, region: str = EU) -> AbstractAsyncContextManager[Connection]:
        """A client in clear, or an attacker: the broker refuses it nothing."""
        return self.visitor(Account.REGION, region)

    def operator(self, region: str = EU) -> AbstractAsyncContextManager[Connection]:
        """Who looks at streams, or destroys them: the broker refuses it nothing."""
        return self.visitor(Account.REGION, region)

    def visitor(
        self, account: Account, region: str = EU
    ) -> AbstractAsyncContextManager[Connection]:
        """A client of an account to whom the broker refuses nothing."""
        return connected(self.visitors_address(account, region))

    def visitors_address(self, account: Account, region: str = EU) -> BusAddress:
        return visitors_address(self.context, self.directory, region, account)

    def as_core(
        self, account: Account, region: str = EU
    ) -> AbstractAsyncContextManager[Connection]:
        """An attacker in an account of a region."""
        return self.visitor(account, region)

    async def provision(self, region: str = EU) -> None:
        """Make the streams that are missing, as an operator does with what provisioning needs."""
        async with (
            self.visitor(Account.REGION, region) as connection,
            self.visitor(Account.VAULT, region) as vault,
        ):
            await provision_region(connection, region, vault_bus=vault)

    async def tenant(
        self,
        *,
        regions: tuple[str, ...] | None = None,
        kind: str | None = None,
        name: str | None = None,
    ) -> str:
        """A new tenant with a root key of its own and the service ``crm``; or ``name``, again.

        It is in all regions of the system, unless ``regions`` names some.
        """
        regions = regions or self.options.regions
        name = name or f"t{next(_names)}-{os.getpid()}"
        uri = await asyncio.to_thread(self.keys.create, name, kind)
        async with Admin.open(self.context) as admin:
            link = statements.link(admin.identity, name, uri=uri, model="byok")
            tenant = statements.tenant(
                admin.identity, name, link=name, regions=regions, region_quorum="all"
            )
            service = statements.service(admin.identity, name, "crm")
            for region in regions:
                await admin.put_link(region, link)
                await admin.put(region, "tenant", tenant)
                await admin.put(region, "service", service)
        return name

    async def kill(self, tenant: str, *, scope: str = "tenant", region: str = EU) -> bytes:
        """Kill and wait until it is complete; returns the hold's id."""
        async with Admin.open(self.context) as admin:
            others = [name for name in self.context.regions if name != region]
            kills = Kills(admin, [region, *others])
            hold = kills.make(scope, tenant, "test")
            until = admin.around.clock.elapsed() + 60
            await kills.place(hold, until)
            async for status in kills.watch(hold.id, until, hold):
                if status.complete:
                    return hold.id
        raise AssertionError("the kill did not become complete")

    async def lift(self, hold_id: bytes) -> None:
        async with Admin.open(self.context) as admin:
            kills = Kills(admin, list(self.context.regions))
            await kills.lift(hold_id, "test", admin.around.clock.elapsed() + 30)

    def sigkill(self, name: str) -> None:
        """End an instance or broker as a power cut would."""
        entry = next(row for row in system.status(self.directory) if row["name"] == name)
        os.kill(entry["pid"], signal.SIGKILL)
        while any(row["running"] for row in system.status(self.directory) if row["name"] == name):
            time.sleep(0.01)

    async def restart(self, name: str) -> None:
        """Start an instance again and wait until it serves."""
        await self.serves(await self.begin(name))

    async def begin(self, name: str) -> Entry:
        """Start an instance again."""
        member = next(m for m in self.options.everybody if m.name == name)
        entry = await asyncio.to_thread(start_member, self.directory, member, die_with_parent=False)
        known = state.load(self.directory)
        assert known is not None
        state.save(self.directory, known.with_entry(entry))
        return entry

    async def serves(self, entry: Entry) -> None:
        """Wait until an instance serves."""
        member = next(m for m in self.options.everybody if m.name == entry.instance)
        await asyncio.to_thread(
            processes.wait_ready, entry.process, ReadyFile(ready_file(self.directory, member))
        )


async def encrypt(app, tenant, plaintexts, *, region=EU, contexts=(), dek_scope="record"):
    request = EncryptRequest(
        v=1, deadline_ms=now_ms() + 5000, dek_scope=dek_scope,
        plaintexts=list(plaintexts), contexts=list(contexts),
    )  # fmt: skip
    subject = data_subjects.gateway(region, "encrypt", tenant, "crm")
    return decode_reply(EncryptReply, await app.request(subject, encode(request), 6))


async def decrypt(app, tenant, records, *, region=EU, contexts=(), service="crm"):
    request = DecryptRequest(
        v=1, deadline_ms=now_ms() + 5000, records=list(records), contexts=list(contexts)
    )
    subject = data_subjects.gateway(region, "decrypt", tenant, service)
    return decode_reply(DecryptReply, await app.request(subject, encode(request), 6))
