"""Real brokers and real Auditors as processes, for the integration tests of the audit."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nats
from kcm_auditor.journal.format import Batch, Entry, Incident, read
from kcm_broker.rights import rights
from kcm_broker.roles import Account, inbox_prefix
from kcm_broker.roles import Role as BrokerRole
from kcm_keymem.random import SystemKeyRandomness
from kcm_runtime.audit.emitter import AuditEmitter
from kcm_runtime.audit.stream_size import audit_config
from kcm_runtime.clock import SystemClock
from kcm_runtime.config import BusAddress
from kcm_runtime.nats.connection import Connection
from kcm_schemas import subjects
from kcm_schemas.audit import AuditBatch, AuditEvent, EventType
from kcm_schemas.codec import decode
from kcm_schemas.roster import OperatorRole, Role
from kcm_schemas.signed import read_signed
from nats.js.api import StreamConfig
from nats.js.errors import NotFoundError

from tests.audit_rig import REGION, System

SERVER = Path(sys.executable).with_name("nats-server")


def permissions(region: str, instance: str) -> dict[str, object]:
    """An Auditor's permissions, for a server without an operator."""
    found = rights(BrokerRole.AUDITOR, Account.REGION, region, instance)
    return {
        "publish": {"allow": list(found.publish)},
        "subscribe": {"allow": list(found.subscribe)},
    }


@dataclass
class Broker:
    """One region's broker on the loopback, with its streams on disk."""

    directory: Path
    region: str = REGION
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "password").write_text("pw")
        settings = {
            "host": "127.0.0.1",
            "port": self.port,
            "jetstream": {"domain": self.region, "store_dir": str(self.directory / "js")},
            "accounts": {
                "REGION": {
                    "jetstream": "enabled",
                    "users": [
                        {"user": "u", "password": "pw"},
                        {
                            "user": "auditor",
                            "password": "pw",
                            "permissions": permissions(self.region, "auditor"),
                        },
                    ],
                }
            },
        }
        (self.directory / "conf").write_text(json.dumps(settings))

    @property
    def address(self) -> BusAddress:
        return BusAddress(
            url=f"nats://127.0.0.1:{self.port}",
            user="u",
            password_file=self.directory / "password",
        )

    async def start(self) -> None:
        self.process = subprocess.Popen(  # noqa: ASYNC220 - starting takes milliseconds
            [str(SERVER), "--config", str(self.directory / "conf")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while True:
            try:
                async with self.client() as client:
                    await client.jetstream(timeout=1).account_info()
                    return
            except (OSError, nats.errors.Error):
                await asyncio.sleep(0.02)

    def stop(self, *, kill: bool = False) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            self.process.wait(20)
            self.process = None

    @asynccontextmanager
    async def client(self) -> AsyncIterator[nats.NATS]:
        client = await nats.connect(
            self.address.url,
            user="u",
            password="pw",
            allow_reconnect=False,
            connect_timeout=1,
            reconnect_time_wait=0.02,
            error_cb=_quiet,
            inbox_prefix=inbox_prefix(BrokerRole.OPERATOR, "olga"),
        )
        try:
            yield client
        finally:
            await client.close()

    async def provision(self, *, room: int = 64 << 20, control: bool = True) -> None:
        async with self.client() as client:
            js = client.jetstream()
            if control:
                await js.add_stream(
                    StreamConfig(
                        name=subjects.CONTROL_STREAM,
                        subjects=[subjects.control_all(self.region)],
                        max_msgs_per_subject=1,
                    )
                )
            await js.add_stream(audit_config(self.region, 1, room))

    async def store(self, emitter: str, body: bytes) -> None:
        async with self.client() as client:
            await client.jetstream().publish(subjects.audit(self.region, emitter), body)


@dataclass
class Rig:
    """A region with a broker, a roster and the configuration of an Auditor."""

    directory: Path
    system: System
    broker: Broker
    process: subprocess.Popen[bytes] | None = None
    logs: list[Path] = field(default_factory=list)

    @property
    def journal(self) -> Path:
        return self.directory / "journal"

    @property
    def ready(self) -> Path:
        return self.directory / "ready"

    async def begin(self) -> None:
        """Start and provision the broker, and write the configuration."""
        await self.broker.start()
        await self.broker.provision()
        self.configure()

    def configure(self, *others: Broker) -> Path:
        path = self.directory / "auditor.toml"
        lines = [
            'instance = "auditor"',
            f'region = "{self.broker.region}"',
            "development = true",
            f'root_public = "{self.system.identity("root").public.hex()}"',
            f'roster = "{self.system.write_roster()}"',
            f'identity = "{self.system.key_path("auditor")}"',
            f'state_dir = "{self.directory / "state"}"',
            f'ready_file = "{self.ready}"',
            "[region_bus]",
            *_bus(self.broker),
            "[auditor]",
            f'journal = "{self.journal}"',
        ]
        for other in others:
            lines += ["[[regions]]", f'region = "{other.region}"', *_bus(other)]
        path.write_text("\n".join(lines) + "\n")
        return path

    async def start_auditor(self) -> None:
        self.ready.unlink(missing_ok=True)
        self.logs.append(self.directory / f"auditor-{len(self.logs)}.log")
        with self.logs[-1].open("wb") as log:
            self.process = subprocess.Popen(  # noqa: ASYNC220 - starting takes milliseconds
                [
                    sys.executable,
                    "-m",
                    "kcm_auditor",
                    "--config",
                    str(self.directory / "auditor.toml"),
                ],
                stderr=log,
            )
        while not self.ready.exists():
            assert self.process.poll() is None, self.log
            await asyncio.sleep(0.02)

    def end_auditor(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(30)
        self.process = None
        return code

    @property
    def log(self) -> str:
        return "".join(path.read_text() for path in self.logs)

    def entries(self) -> list[Entry]:
        """Everything that is on the disk now, but for a line that is being written."""
        return [
            read(line)[0]
            for path in sorted(self.journal.glob("*.jsonl"))
            for line in path.read_bytes().splitlines(keepends=True)
            if line.endswith(b"\n")
        ]

    def incidents(self) -> list[tuple[str, str | None]]:
        return [
            (entry.content.incident.value, entry.content.emitter)
            for entry in self.entries()
            if isinstance(entry.content, Incident)
        ]

    def events(self, emitter: str) -> list[tuple[int, AuditEvent]]:
        """Number and content of every recorded event of an emitter, in the journal's order."""
        found: list[tuple[int, AuditEvent]] = []
        for entry in self.entries():
            if isinstance(entry.content, Batch):
                batch = decode(AuditBatch, read_signed(entry.content.statement).body)
                if batch.emitter == emitter:
                    found += [
                        (batch.first + at, decode(AuditEvent, raw))
                        for at, raw in enumerate(batch.events)
                    ]
        return found

    async def head(self) -> int:
        """The last position that the Auditor signed for the region's Cores; 0 if none."""
        subject = subjects.control_head(self.broker.region, "auditor")
        async with self.broker.client() as client:
            try:
                found = await client.jetstream().get_last_msg(subjects.CONTROL_STREAM, subject)
            except NotFoundError:
                return 0
        return self.system.verifier.stream_head(found.data or b"").through

    @asynccontextmanager
    async def emitter(self, name: str, broker: Broker | None = None) -> AsyncIterator[AuditEmitter]:
        connection = Connection((broker or self.broker).address, name)
        await connection.start()
        incarnation = SystemKeyRandomness().public(16)
        emitter = AuditEmitter(
            connection, self.system.instance_context(name, incarnation), SystemClock()
        )
        await emitter.start()
        try:
            yield emitter
        finally:
            await emitter.close()
            await connection.close()


async def _quiet(_: Exception) -> None:
    """A broker that is not there yet is what these tests wait for."""


def _bus(broker: Broker) -> list[str]:
    address = broker.address
    return [
        f'url = "{address.url}"',
        'user = "auditor"',
        f'password_file = "{address.password_file}"',
        f'inbox = "{inbox_prefix(BrokerRole.AUDITOR, "auditor")}"',
    ]


@contextmanager
def make_rig(directory: Path) -> Iterator[Rig]:
    """A system with two Gateways, an Auditor and operators; ends what it started."""
    system = System(directory)
    system.add("gw", Role.GATEWAY)
    system.add("auditor", Role.AUDITOR)
    system.add_operator("olga", OperatorRole.SECURITY)
    rig = Rig(directory, system, Broker(directory / REGION))
    try:
        yield rig
    finally:
        if rig.process is not None:
            rig.end_auditor(signal.SIGKILL)
        rig.broker.stop(kill=True)


def recorded(rig: Rig, kind: str = EventType.DATA_ENCRYPT) -> list[int]:
    """The counts of a Gateway's events of one kind, in the order of the journal."""
    return [found.count for _, found in rig.events("gw") if found.type == kind]
