"""The steps of the demonstration, and its result as a JSON object."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kcm import Admin, Client, ClientContext, KcmError
from kcm._internal import app_entries, statements
from kcm._internal.kills import Kills
from kcm.cli.signals import orderly, undisturbed
from kcm_runtime.clock import SystemClock
from kcm_schemas import data_subjects
from kcm_schemas.app import App
from kcm_schemas.roster import Role
from kcm_schemas.text import counted

from kcm_devsystem import applications, system
from kcm_devsystem.configs import config_file
from kcm_devsystem.demo import records
from kcm_devsystem.demo.checks import (
    FILE_BYTES,
    KILLED,
    OTHER,
    SERVICE,
    audit,
    passed,
    refused,
    refused_by_broker,
    refused_gateway,
    refused_plaintext,
    served,
)
from kcm_devsystem.demo.clouds import KINDS, Cloud, provided
from kcm_devsystem.demo.traffic import Stream, running
from kcm_devsystem.errors import NoSystemError
from kcm_devsystem.root_keys import RootKeys

HOME: Final = "eu-de"
ABROAD: Final = "us-east"
BEFORE_KILL_S: Final = 1.0
"""Seconds of traffic before the kill."""

GRANT_S: Final = 10.0
"""Seconds in which the Gateways of both regions have to know a grant."""

WATCHED_S: Final = 16.0
"""Seconds after the start until every Core has watched its stream for longer than any lease and its
last answer. Earlier, no Core can state that no instance is missing from a kill's table."""

DARK_S: Final = 1.5
"""Seconds of traffic after the kill is complete, to detect late answers."""

COMPLETE_S: Final = 30.0
"""Maximum seconds until the kill is complete."""


@dataclass(frozen=True, slots=True)
class Options:
    """The input, the function for progress, and the provider of the root keys."""

    input: Path | None = None
    tell: Callable[[str], None] = lambda _: None
    l1: str | None = None
    """``awskms``, ``gcpkms``, ``azurekv``, ``pkcs11`` or ``softkey``; ``None``: SoftHSM if it is
    installed."""


def run(options: Options) -> dict[str, Any]:
    """Run the demonstration. The result's ``ok`` is true if all checks passed.

    All started processes are ended when this returns or raises, also after a signal.
    """
    rows = records.from_file(options.input) if options.input else records.made_up()
    with _directory() as directory, orderly(), provided(options.l1, directory) as cloud:
        root = directory / "system"  # a system needs an empty directory
        setup = system.Options(
            root,
            applications=1,
            die_with_parent=True,
            unsealer=cloud.environment if cloud else {},
        )
        try:
            state = system.up(setup, options.tell)
            context = ClientContext.load(state.context)
            result = asyncio.run(_Scenario(context, setup, options, rows, cloud).play())
        finally:
            with undisturbed(), contextlib.suppress(NoSystemError):
                system.down(root)
        result["audit"] = audit(root, config_file(root, setup.members[-1]))
    result["ok"] = passed(result)
    return result


class _Scenario:
    def __init__(
        self,
        context: ClientContext,
        setup: system.Options,
        options: Options,
        rows: list[bytes],
        cloud: Cloud | None,
    ) -> None:
        self._cloud: Final = cloud
        self._context: Final = context
        self._setup: Final = setup
        self._tell: Final = options.tell
        self._kind: Final = options.l1
        self._rows: Final = rows
        self._clock: Final = SystemClock()
        self._began: Final = self._clock.elapsed()

    async def play(self) -> dict[str, Any]:
        result: dict[str, Any] = {}
        async with Admin.open(self._context) as admin:
            result["root_keys"] = await self._tenants(admin)
            first = await self._one_tenant(admin)
            result["without_credentials"] = await self._refused_by_the_broker()
            both = applications.entry(
                self._context, [f"{one}/{SERVICE}" for one in (KILLED, OTHER)]
            )
            applications.let_in_for(self._context, self._setup.directory, both)
            await self._served(admin, first, both, result)
        return result

    async def _served(self, admin: Admin, first: App, both: App, result: dict[str, Any]) -> None:
        async with (
            Client.connect(self._context, HOME) as home,
            Client.connect(self._context, ABROAD) as abroad,
        ):
            result["without_grant"] = await self._grants(admin, first, both, home, abroad)
            sealed = await self._rows_there_and_back(home, result)
            result["file"] = await self._file()
            result["wrong_region"] = await refused(abroad, sealed[0])
            self._tell(f"a record of {HOME}, offered to {ABROAD}: {result['wrong_region']}")
            result["past_the_gateway"] = await self._past_the_gateway()
            result["stolen_gateway"] = await self._stolen_gateway(sealed[0])
            streams = [
                Stream(client, tenant, SERVICE, self._clock)
                for client in (home, abroad)
                for tenant in (KILLED, OTHER)
            ]
            await self._kill_and_lift(admin, home, streams, sealed, result)

    async def _tenants(self, admin: Admin) -> str:
        keys = RootKeys(self._setup.directory)
        kind = self._kind or keys.kind
        self._tell(f"root keys: {KINDS[kind]}")
        for number, tenant in enumerate((KILLED, OTHER)):
            if self._cloud is None:
                uri = await asyncio.to_thread(keys.create, f"{tenant}-root", kind)
            else:
                uri = self._cloud.uris[number]
            link = statements.link(admin.identity, f"{tenant}-root", uri=uri, model="byok")
            record = statements.tenant(
                admin.identity,
                tenant,
                link=f"{tenant}-root",
                regions=[HOME, ABROAD],
                region_quorum="all",
            )
            service = statements.service(admin.identity, tenant, SERVICE)
            for region in (HOME, ABROAD):
                await admin.put_link(region, link)
                await admin.put(region, "tenant", record)
                await admin.put(region, "service", service)
        self._tell(f"tenants {KILLED} and {OTHER}, each with its own root key, in both regions")
        return kind

    async def _one_tenant(self, admin: Admin) -> App:
        """Grant the application one tenant, at the brokers and at the Gateways."""
        first = applications.entry(self._context, [f"{OTHER}/{SERVICE}"])
        applications.let_in_for(self._context, self._setup.directory, first)
        await self._put_app(admin, first)
        async with Client.connect(self._context, HOME) as home:
            await served(home, OTHER, self._clock, self._clock.elapsed() + GRANT_S)
        return first

    async def _refused_by_the_broker(self) -> str:
        """Ask the Gateways for the other tenant; the request does not reach them."""
        subject = data_subjects.gateway(HOME, "encrypt", KILLED, SERVICE)
        refusal = await refused_by_broker(self._context.app_address(HOME), subject)
        self._tell(f"an application let in for {OTHER} asks for {KILLED}: {refusal} by the broker")
        return refusal

    async def _grants(
        self, admin: Admin, first: App, both: App, home: Client, abroad: Client
    ) -> str:
        """Ask the Gateways for what the broker lets pass; returns the code of their refusal.

        Then grant both tenants.
        """
        until = self._clock.elapsed() + GRANT_S
        await served(home, OTHER, self._clock, until)
        refusal = await refused_plaintext(home, KILLED)
        self._tell(
            f"let in for {KILLED}, but with a grant for {OTHER} only: {refusal} by the Gateway"
        )
        everywhere: dict[str, App | None] = {HOME: first, ABROAD: first}
        await self._put_app(admin, app_entries.changed(everywhere, first, grants=list(both.grants)))
        for client in (home, abroad):
            await served(client, KILLED, self._clock, until)
        return refusal

    async def _put_app(self, admin: Admin, entry: App) -> None:
        signed = statements.app(admin.identity, entry)
        for region in (HOME, ABROAD):
            await admin.put(region, "app", signed)

    async def _rows_there_and_back(self, client: Client, result: dict[str, Any]) -> list[bytes]:
        rows = counted(len(self._rows), "row")
        self._tell(f"encrypting {rows} in {HOME}, each with its own data key")
        sealed = (await client.encrypt(KILLED, SERVICE, self._rows, deadline_s=60)).values
        opened = await client.decrypt(KILLED, SERVICE, sealed, deadline_s=60)
        same = sum(a == b for a, b in zip(self._rows, opened.values, strict=True))
        result["records"], result["round_trips_ok"] = len(self._rows), same
        self._tell(f"decrypted {same} of {rows} correctly")
        return sealed

    async def _past_the_gateway(self) -> str:
        """Ask a Core as an application, past the Gateways."""
        core = next(one.name for one in self._setup.members if one.role is Role.CORE)
        subject = data_subjects.core(HOME, core, "unwrap", KILLED, SERVICE)
        refusal = await refused_by_broker(self._context.app_address(HOME), subject)
        self._tell(f"an application asks a Core itself: {refusal} by the broker")
        return refusal

    async def _stolen_gateway(self, record: bytes) -> str:
        """Be a Gateway of the region, and decrypt without an application that asks."""
        gateway = next(one for one in self._setup.members if one.role is Role.GATEWAY)
        refusal = await refused_gateway(config_file(self._setup.directory, gateway), record)
        self._tell(f"a stolen Gateway asks a Core for what no application asks: {refusal}")
        return refusal

    async def _file(self) -> dict[str, Any]:
        """Encrypt 64 MiB in pieces of 1 MiB, in an application that embeds the engine."""
        self._tell(f"encrypting {FILE_BYTES >> 20} MiB in pieces of 1 MiB, in the application")
        config = config_file(self._setup.directory, self._setup.embedded[0])
        argv = [sys.executable, "-m", "kcm_gateway.selftest", "--config", str(config)]
        process = await asyncio.create_subprocess_exec(
            *argv,
            "--tenant",
            KILLED,
            "--service",
            SERVICE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        draw = random.Random(records.SEED)  # noqa: S311 - data for a demonstration
        pieces = b"".join(draw.randbytes(1 << 20) for _ in range(FILE_BYTES >> 20))
        try:
            out, _ = await process.communicate(pieces)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            raise
        told: dict[str, Any] = json.loads(out or b"{}")
        self._tell(f"{told.get('correct', 0)} pieces were decrypted correctly")
        return told

    async def _kill_and_lift(
        self,
        admin: Admin,
        client: Client,
        streams: list[Stream],
        sealed: list[bytes],
        result: dict[str, Any],
    ) -> None:
        kills = Kills(admin, [HOME, ABROAD])
        async with running(streams):
            self._tell(f"traffic of {KILLED} and {OTHER} in both regions")
            elapsed = self._clock.elapsed() - self._began
            await asyncio.sleep(max(BEFORE_KILL_S, WATCHED_S - elapsed))
            hold = kills.make("tenant", KILLED, "demonstration")
            published = self._clock.elapsed()
            self._tell(f"killing {KILLED}: hold {hold.id.hex()}")
            status = await kills.place(hold, published + COMPLETE_S)
            async for status in kills.watch(hold.id, published + COMPLETE_S, hold):
                purged = sum(one.how != "waiting" for one in status.incarnations)
                self._tell(f"  {purged} of {len(status.incarnations)} instances have purged")
            await asyncio.sleep(DARK_S)
        result["kill"] = {
            "complete": status.complete,
            "instances": len(status.incarnations),
            "slowest_ms": max(
                (incarnation.after_ms for incarnation in status.incarnations), default=0
            ),
            "last_success_after_ms": round(
                max(
                    0.0,
                    *(1000 * (s.last_success - published) for s in streams if s.tenant == KILLED),
                ),
                1,
            ),
        }
        result["after_kill"] = self._after_kill(streams, published)
        why = result["after_kill"]["killed_tenant"] = await refused(client, sealed[0])
        self._tell(f"{KILLED} is refused with {why}; {OTHER} is served as before")
        self._tell("lifting the kill")
        await kills.lift(hold.id, "demonstration is over", self._clock.elapsed() + COMPLETE_S)
        opened = await self._after_lift(client, sealed)
        result["after_restore"] = {"decrypted": opened}
        self._tell(f"decrypted {opened} of {len(sealed)} again")

    def _after_kill(self, streams: list[Stream], published: float) -> dict[str, Any]:
        others = [stream for stream in streams if stream.tenant == OTHER]
        return {
            "killed_tenant": "",
            "other_tenant_errors": sum(stream.codes.total() + stream.wrong for stream in others),
            "other_tenant_answers": sum(stream.answers for stream in others),
            "other_tenant_served": all(stream.last_success > published for stream in others),
            "wrong_answers": sum(stream.wrong for stream in streams),
        }

    async def _after_lift(self, client: Client, sealed: list[bytes]) -> int:
        until = self._clock.elapsed() + COMPLETE_S
        while True:
            try:
                answer = await client.decrypt(KILLED, SERVICE, sealed, deadline_s=30)
                return sum(a == b for a, b in zip(self._rows, answer.values, strict=True))
            except KcmError:
                if self._clock.elapsed() > until:
                    raise
            await asyncio.sleep(0.05)


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="kcm-demo-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
