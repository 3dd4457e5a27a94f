"""One supervised connection to one account of the broker.

It corrects these defaults of the client library, each of which was seen to lose messages:

- The library replays requests that were sent during an outage. Here nothing is buffered while
  disconnected.
- It stays closed for ever after some server errors. Here the supervisor makes a new connection with
  all subscriptions.
- It reconnects without jitter. Here the wait is random.
- It checks the payload but not the headers against the server's limit, and loses the connection.
  Here the sum is bounded.
- It stops reading for good after some messages. ``nats.client`` continues.
- It accepts a server of any version. Here one that is too old fails the start, or is left later.

Errors of the library stop here: callers see ``KcmError`` with ``unavailable`` or
``deadline_exceeded``.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kcm_schemas import limits
from kcm_schemas.codes import Code, KcmError
from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext

from kcm_runtime.backoff import Backoff
from kcm_runtime.config import BusAddress
from kcm_runtime.logs import fields
from kcm_runtime.nats.client import ReadingClient, abandon
from kcm_runtime.nats.connect_failures import Attempts, Failure, kcm_error, report
from kcm_runtime.nats.login import Login
from kcm_runtime.nats.ports import OnDelivery
from kcm_runtime.nats.server_version import check_version
from kcm_runtime.nats.store_health import Stores
from kcm_runtime.nats.stream_protection import Unfit
from kcm_runtime.tasks import TaskSet

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 5
"""Seconds for one attempt to connect."""

PENDING_MESSAGES_MAX: Final = 4096
"""Messages of one subscription that wait for their callback; further ones are dropped."""

PENDING_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bytes of one subscription that wait for their callback."""

HEADERS_RESERVE: Final = 1024
"""Bytes that are reserved for headers below the bound of a message."""


@dataclass(slots=True)
class _Wanted:
    subject: str
    queue: str
    callback: OnDelivery
    live: Subscription | None = None


class Connection:
    """A connection that is restored, with its subscriptions, until it is closed."""

    def __init__(
        self, address: BusAddress, name: str, stores: Stores | None = None, *, bus: str = ""
    ) -> None:
        """``stores`` is that of another connection to this broker; ``bus`` names this one."""
        self._address: Final = address
        self._name: Final = name
        self.bus: Final = bus
        self._login: Final = Login(address)
        self._wanted: list[_Wanted] = []
        self._client: Client | None = None
        self._closing = False
        self._building = False
        self._rebuilding: Final = TaskSet()
        self._leaving: Final = TaskSet()
        self._times = 0
        self._on_reconnect: list[Callable[[], None]] = []
        self.stores: Final = Stores() if stores is None else stores
        """Whether the broker stores what is written over this connection."""
        self._last = ", ".join(url.rpartition("//")[2].rpartition("@")[2] for url in address.urls)
        self._reasons: set[str] = set()
        self.attempts: Final = Attempts(address.urls)
        self._trying: ReadingClient | None = None
        self._left = ""
        """The node that was left last: it is tried after all others."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._client is not None and self._client.is_connected

    @property
    def failure(self) -> Failure | None:
        """Why the latest attempts to connect failed; ``None`` while connected."""
        return self.attempts.failure

    @property
    def times_connected(self) -> int:
        """How many connections there were: a new number means a new connection."""
        return self._times

    @property
    def over(self) -> str:
        """The bus, as the end of an error's text; empty for a connection without a name of it."""
        return f" ({self.bus})" if self.bus else ""

    @property
    def nodes(self) -> int:
        """How many servers the broker has, by this address."""
        return len(self._address.urls)

    @property
    def client(self) -> Client:
        """The present client of the library; raises ``unavailable``."""
        if self._client is None or not self._client.is_connected:
            raise KcmError(Code.UNAVAILABLE, f"the broker cannot be reached{self.over}")
        return self._client

    def jetstream(self, timeout_s: float = 5.0) -> JetStreamContext:
        """Return JetStream of this account; raises ``unavailable``."""
        return self.client.jetstream(timeout=timeout_s)

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after every reconnection."""
        self._on_reconnect.append(callback)

    async def start(self) -> None:
        """Connect; waits for the broker without a limit.

        Raises ``SecretFileError``, and ``Unfit`` if the broker is too old.
        """
        self._login.check()
        await self._build(first=True)

    async def close(self) -> None:
        """Send pending messages and close for good."""
        self._closing = True
        self._rebuilding.close()
        if self._client is not None and not self._client.is_closed:
            try:
                await asyncio.wait_for(self._client.drain(), 5)
            except (TimeoutError, nats_errors.Error):
                await self._client.close()

    async def move(self) -> None:
        """Leave this node of the broker for another one; with a single node, do nothing.

        A node that is cut off from its cluster answers its clients' pings and serves nothing.
        """
        if self._client is None or not self.connected or len(self._address.urls) < 2:
            return
        url = self._client.connected_url
        self._left = "" if url is None else url.netloc.rpartition("@")[2]
        log.warning(
            "leaving a node of the broker, which does not serve",
            extra=fields(instance=self._name, broker=self._left, bus=self.bus or None),
        )
        await abandon(self._client)  # its end makes a new one

    async def subscribe(self, subject: str, callback: OnDelivery, queue: str = "") -> None:
        """Call ``callback`` for every message, one at a time; also after a reconnection."""
        wanted = _Wanted(subject, queue, callback)
        self._wanted.append(wanted)
        await self._make(wanted)

    async def unsubscribe(self, subject: str) -> None:
        """Stop receiving the messages of a subject."""
        for wanted in [w for w in self._wanted if w.subject == subject]:
            self._wanted.remove(wanted)
            if wanted.live is not None and self.connected:
                await wanted.live.unsubscribe()

    async def publish(
        self, subject: str, body: bytes, reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Send; raises ``unavailable`` or ``too_large``. Nothing is buffered."""
        if len(body) > limits.BODY_MAX + HEADERS_RESERVE:
            raise KcmError(Code.TOO_LARGE)
        try:
            await self.client.publish(subject, body, reply=reply, headers=headers)
        except nats_errors.Error as error:
            raise kcm_error(error) from None

    async def request(self, subject: str, body: bytes, timeout_s: float) -> bytes:
        """Send a request and wait for the reply.

        Raises ``unavailable``, ``deadline_exceeded`` or ``too_large``. ``NobodyListens`` is the
        ``unavailable`` that the broker reports.
        """
        if len(body) > limits.BODY_MAX + HEADERS_RESERVE:
            raise KcmError(Code.TOO_LARGE)
        try:
            answer = await self.client.request(subject, body, timeout=timeout_s)
        except (nats_errors.Error, TimeoutError) as error:
            raise kcm_error(error) from None
        return answer.data

    async def flush(self, timeout_s: float = 2.0) -> None:
        """Wait until the broker has received everything that was published."""
        try:
            await self.client.flush(timeout=int(timeout_s) or 1)
        except (nats_errors.Error, TimeoutError) as error:
            raise kcm_error(error) from None

    async def _build(self, *, first: bool = False) -> None:
        """Make a client and all subscriptions, with retries until it works.

        Every error is retried: without a connection an instance would receive no kill. Only at the
        start an old broker is an error, because nothing depends on the connection yet.
        """
        backoff = Backoff(0.1, 5.0, jitter=(0.5, 1.5))
        self._building = True
        while not self._closing:
            made: ReadingClient | None = None
            try:
                made = client = self._trying = ReadingClient()
                await client.connect(
                    servers=self._servers(),
                    dont_randomize=True,
                    **self._login.options(),
                    name=self._name,
                    connect_timeout=CONNECT_TIMEOUT_S,
                    reconnect_time_wait=random.uniform(0.1, 0.5),  # noqa: S311 - jitter
                    max_reconnect_attempts=-1,
                    pending_size=0,
                    ping_interval=5,
                    max_outstanding_pings=2,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnect,
                    reconnected_cb=self._on_reconnected,
                    closed_cb=self._on_closed,
                )
                self._check(client)
                self._client = client
                self.attempts.succeeded()
                self._times += 1
                if self._times == 1:
                    log.info("connected to the broker", extra=self._named)
                for wanted in list(self._wanted):
                    await self._make(wanted)
                if client.is_closed:
                    raise nats_errors.ConnectionClosedError
            except asyncio.CancelledError:  # the caller gave up
                if made is not None:
                    made.abort()
                await abandon(made)
                raise
            except Exception as error:
                self.attempts.failed(error, made)
                await abandon(made)
                if isinstance(error, Unfit) and first:
                    self._building = False
                    raise
                self._missing(str(error) if isinstance(error, Unfit) else type(error).__name__)
                await backoff.wait()
            else:
                break
        self._building = False

    def _check(self, client: Client) -> None:
        """Check the server's version; raises ``Unfit``."""
        said = client._server_info.get("version")  # noqa: SLF001 - the library parses, and raises
        warning = check_version(said, allow_old=self._address.allow_old_broker)
        if warning:
            log.warning("%s", warning, extra=self._named)

    def _servers(self) -> list[str]:
        urls = list(self._address.urls)
        random.shuffle(urls)
        return sorted(urls, key=lambda url: bool(self._left) and url.endswith(self._left))

    async def _make(self, wanted: _Wanted) -> None:
        wanted.live = await self.client.subscribe(
            wanted.subject,
            queue=wanted.queue,
            cb=wanted.callback,
            pending_msgs_limit=PENDING_MESSAGES_MAX,
            pending_bytes_limit=PENDING_BYTES_MAX,
        )

    @property
    def _place(self) -> str:
        """The address of the present or last broker, without name and password."""
        url = None if self._client is None else self._client.connected_url
        if url is not None:
            self._last = url.netloc.rpartition("@")[2]
        return self._last

    @property
    def _named(self) -> dict[str, object]:
        return fields(instance=self._name, broker=self._place, bus=self.bus or None)

    def _missing(self, reason: str) -> None:
        """Log that there is no broker, once for each reason until there is one."""
        if reason not in self._reasons:
            self._reasons.add(reason)
            log.warning("no broker (%s)", reason, extra=self._named)

    async def _on_error(self, error: Exception) -> None:
        if self.connected:
            log.warning("the broker reports %s", report(error), extra=self._named)
        else:
            self.attempts.failed(error, self._trying)
            self._missing(type(error).__name__)

    async def _on_disconnect(self) -> None:
        if not self._closing:
            log.warning("lost the broker; connecting again", extra=self._named)

    async def _on_reconnected(self) -> None:
        client = self._client
        if client is None:
            return
        try:
            self._check(client)
        except Unfit as error:
            log.error("leaving the broker: %s", error, extra=self._named)
            # Its end makes a new one. Not from here: closing ends the task that calls this.
            self._leaving.spawn(abandon(client))
            return
        self._times += 1
        self.attempts.succeeded()
        self._reasons.clear()
        log.info("connected to the broker again", extra=self._named)
        for callback in self._on_reconnect:
            callback()

    async def _on_closed(self) -> None:
        if not self._closing and not self._building:
            log.warning("the broker closed the connection; connecting again", extra=self._named)
            self._rebuilding.spawn(self._rebuild())

    async def _rebuild(self) -> None:
        await self._build()
        await self._on_reconnected()
