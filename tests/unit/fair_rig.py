"""A Gateway with its request server, over a bus in memory."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from kcm_gateway.engine import Batch
from kcm_runtime.nats.request_server import RequestServer
from kcm_runtime.nats.store_health import Stores
from kcm_schemas import data_subjects
from kcm_schemas.codec import encode
from kcm_schemas.data import EncryptReply, EncryptRequest, decode_reply

from tests.unit.app_rig import Bus, Served, app, channel


@dataclass
class Message:
    """A delivery."""

    subject: str
    data: bytes
    reply: str


@dataclass
class Connection:
    """Delivers to the endpoint that has as many tokens, and keeps the answers."""

    callbacks: dict[int, Any] = field(default_factory=dict)
    answers: dict[str, asyncio.Future[bytes]] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    stores: Stores = field(default_factory=Stores)

    async def subscribe(self, subject: str, callback: Any, queue: str = "") -> None:
        self.callbacks[subject.count(".") + 1] = callback

    async def publish(self, subject: str, body: bytes) -> None:
        self.order.append(subject)
        if not self.answers[subject].done():
            self.answers[subject].set_result(body)

    async def deliver(self, subject: str, body: bytes, name: str = "") -> asyncio.Future[bytes]:
        reply = f"_INBOX.{name}{len(self.answers)}"
        answer = self.answers[reply] = asyncio.get_running_loop().create_future()
        await self.callbacks[subject.count(".") + 1](Message(subject, body, reply))
        return answer


class Engine:
    """Notes whose record it encrypts; records that begin with ``hang`` wait for an event."""

    def __init__(self) -> None:
        self.order: list[bytes] = []
        self.go_on = asyncio.Event()
        self.hanging = 0

    async def encrypt(self, tenant, service, plaintexts, contexts, *, dek_scope):
        if plaintexts[0].startswith(b"hang"):
            self.hanging += 1
            await self.go_on.wait()
        self.order.append(plaintexts[0])
        return Batch(list(plaintexts), [], 3.0)


class Gateway(Served):
    """A Gateway whose requests go through its request server."""

    def __init__(self) -> None:
        super().__init__()
        self.work = self.api._engine = Engine()  # noqa: SLF001 - it notes the order
        self.link = Connection()
        self.server = RequestServer(
            self.link, self.clock, name="kcm", service_id="1", version="1", metadata={}
        )

    async def start(self, *apps: str) -> list[Any]:
        """Serve; returns a channel of each application."""
        lane = self.sessions.lane
        await self.server.add("sessions", "a.b.c.d.e.*", self.sessions.handle, "")
        await self.server.add("sealed", "a.b.c.d.e.*.*.*", self.api.handle_sealed, "", lane=lane)
        await self.server.add("data", "a.b.c.d.*.*.*", self.api.handle, "", lane=lambda _: ())
        bus = Bus(self)
        for name in apps:
            self.registry.put(app(name, "acme/crm"))
        return [channel(bus, name) for name in apps]

    async def answer(self, subject: str, body: bytes) -> bytes:
        return await (await self.link.deliver(subject, body))

    def body(self, record: bytes, left_ms: int = 5000) -> bytes:
        """A request to encrypt one record."""
        return encode(
            EncryptRequest(
                v=1,
                deadline_ms=self.clock.unix_ms() + left_ms,
                dek_scope="record",
                plaintexts=[record],
                contexts=[],
            )
        )

    def ask(self, sdk: Any, record: bytes, left_ms: int = 5000) -> asyncio.Task[EncryptReply]:
        """An application's request to encrypt one record."""
        subject = data_subjects.gateway("eu", "encrypt", "acme", "crm")

        async def work() -> EncryptReply:
            raw = await sdk.request(subject, self.body(record, left_ms), 60.0)
            return decode_reply(EncryptReply, raw)

        return asyncio.create_task(work())
