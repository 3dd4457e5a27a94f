"""One supervised connection to one account of the broker.

What the client library does not do by itself, each of them seen to lose messages:

- it replays requests that were sent during an outage: here nothing is buffered while disconnected;
- it stays closed for ever after some server errors: here the supervisor builds a new connection and
  makes every subscription again;
- it reconnects without jitter: here the wait is drawn at random;
- it checks the payload but not the headers against the server's limit, and loses the connection:
  here the sum is bounded;
- it stops reading for good over some messages: ``reading`` goes on;
- it takes a server of any age: one that is too old ends the start, and later it is left.

Foreign errors stop here: callers see ``KcmError`` with ``unavailable`` or ``deadline_exceeded``.
"""

from __future__ import annotations

import asyncio
import contextlib
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

from kcm_runtime.config import BusAddress
from kcm_runtime.files.secret_file import SecretFileError
from kcm_runtime.nats.client import ReadingClient
from kcm_runtime.nats.connect_failures import Failure, Reason, failure_of
from kcm_runtime.nats.ports import NobodyListens, OnArrival
from kcm_runtime.nats.server_version import check_version
from kcm_runtime.nats.store_health import Stores
from kcm_runtime.nats.stream_protection import Unfit

log = logging.getLogger(__name__)


CONNECT_TIMEOUT_S: Final = 5
"""Seconds for one attempt to connect."""

PENDING_MESSAGES_MAX: Final = 4096
"""Messages of one subscription waiting for their callback; more are dropped and asked again."""

PENDING_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bytes of one subscription waiting for their callback."""

HEADERS_RESERVE: Final = 1024
"""Bytes kept free for headers under the bound of a message."""


@dataclass(slots=True)
class _Wanted:
    subject: str
    queue: str
    callback: OnArrival
    live: Subscription | None = None


class Connection:
    """A connection that comes back, with its subscriptions, until it is closed."""

    def __init__(self, address: BusAddress, name: str) -> None:
        self._address: Final = address
        self._name: Final = name
        self._wanted: list[_Wanted] = []
        self._client: Client | None = None
        self._closing = False
        self._building = False
        self._rebuilding: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._times = 0
        self._on_reconnect: list[Callable[[], None]] = []
        self.stores: Final = Stores()
        """Whether what is written over this connection is stored."""
        self._last = ", ".join(url.rpartition("//")[2].rpartition("@")[2] for url in address.urls)
        self._reasons: set[str] = set()
        self._failure: Failure | None = None
        self._left = ""
        """The node that was left last: it is tried after all others."""

    @property
    def connected(self) -> bool:
        """Whether the broker is there at the moment."""
        return self._client is not None and self._client.is_connected

    @property
    def failure(self) -> Failure | None:
        """Why attempts to connect fail, as far as one said; none when there is a connection."""
        return self._failure

    @property
    def times_connected(self) -> int:
        """How often there was a connection: another number, another one."""
        return self._times

    @property
    def nodes(self) -> int:
        """How many servers the broker has, as far as this address says."""
        return len(self._address.urls)

    @property
    def client(self) -> Client:
        """The client library's object at the moment; raises ``unavailable``."""
        if self._client is None or not self._client.is_connected:
            raise KcmError(Code.UNAVAILABLE, "the broker cannot be reached")
        return self._client

    def jetstream(self, timeout_s: float = 5.0) -> JetStreamContext:
        """JetStream of this account; raises ``unavailable``."""
        return self.client.jetstream(timeout=timeout_s)

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever the connection came back."""
        self._on_reconnect.append(callback)

    async def start(self) -> None:
        """Connect, waiting for the broker as long as it takes.

        Raises ``SecretFileError``, and ``Unfit`` when the broker is too old.
        """
        _password(self._address)
        await self._build(first=True)

    async def close(self) -> None:
        """Send what is pending and close for good."""
        self._closing = True
        if self._rebuilding is not None:
            self._rebuilding.cancel()
        if self._client is not None and not self._client.is_closed:
            try:
                await asyncio.wait_for(self._client.drain(), 5)
            except (TimeoutError, nats_errors.Error):
                await self._client.close()

    async def move(self) -> None:
        """Leave this node of the broker for another one; without one, nothing happens.

        A node that is cut off from its cluster answers its clients' pings and serves nothing.
        """
        if self._client is None or not self.connected or len(self._address.urls) < 2:
            return
        url = self._client.connected_url
        self._left = "" if url is None else url.netloc.rpartition("@")[2]
        log.warning("%s: leaves a node that does not serve", self._name)
        await _abandon(self._client)  # that it is closed makes a new one

    async def subscribe(self, subject: str, callback: OnArrival, queue: str = "") -> None:
        """Call ``callback`` for every message, one after another; also after a reconnect."""
        wanted = _Wanted(subject, queue, callback)
        self._wanted.append(wanted)
        await self._make(wanted)

    async def unsubscribe(self, subject: str) -> None:
        """Stop receiving what ``subscribe`` asked for."""
        for wanted in [w for w in self._wanted if w.subject == subject]:
            self._wanted.remove(wanted)
            if wanted.live is not None and self.connected:
                await wanted.live.unsubscribe()

    async def publish(
        self, subject: str, body: bytes, reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Send; raises ``unavailable`` or ``too_large``. Nothing is kept for later."""
        if len(body) > limits.BODY_MAX + HEADERS_RESERVE:
            raise KcmError(Code.TOO_LARGE)
        try:
            await self.client.publish(subject, body, reply=reply, headers=headers)
        except nats_errors.Error as error:
            raise _ours(error) from None

    async def request(self, subject: str, body: bytes, timeout_s: float) -> bytes:
        """Ask and wait; raises ``unavailable``, ``deadline_exceeded`` or ``too_large``.

        ``NobodyListens`` is the ``unavailable`` of a broker that says so.
        """
        if len(body) > limits.BODY_MAX + HEADERS_RESERVE:
            raise KcmError(Code.TOO_LARGE)
        try:
            answer = await self.client.request(subject, body, timeout=timeout_s)
        except (nats_errors.Error, TimeoutError) as error:
            raise _ours(error) from None
        return answer.data

    async def flush(self, timeout_s: float = 2.0) -> None:
        """Wait until the broker has everything that was published."""
        try:
            await self.client.flush(timeout=int(timeout_s) or 1)
        except (nats_errors.Error, TimeoutError) as error:
            raise _ours(error) from None

    async def _build(self, *, first: bool = False) -> None:
        """Make a client and all subscriptions, with back-off until it works.

        Whatever goes wrong is tried again: a connection that gave up would hear no kill any more.
        Only at the start an old broker is an error: nothing depends on the connection yet.
        """
        wait = 0.1
        self._building = True
        while not self._closing:
            made: Client | None = None
            try:
                made = client = ReadingClient()
                await client.connect(
                    servers=self._servers(),
                    dont_randomize=True,
                    user=self._address.user,
                    password=_password(self._address),
                    name=self._name,
                    connect_timeout=CONNECT_TIMEOUT_S,
                    reconnect_time_wait=random.uniform(0.1, 0.5),  # type: ignore[arg-type]  # noqa: S311 - jitter
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
                self._failure = None
                self._times += 1
                if self._times == 1:
                    log.info("%s: connected to %s", self._name, self._place)
                for wanted in list(self._wanted):
                    await self._make(wanted)
                if client.is_closed:
                    raise nats_errors.ConnectionClosedError
            except asyncio.CancelledError:  # whoever waited for it gave up
                await _abandon(made)
                raise
            except Exception as error:
                self._failed(error)
                await _abandon(made)
                if isinstance(error, Unfit) and first:
                    self._building = False
                    raise
                self._missing(str(error) if isinstance(error, Unfit) else type(error).__name__)
                await asyncio.sleep(wait * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
                wait = min(wait * 2, 5.0)
            else:
                break
        self._building = False

    def _check(self, client: Client) -> None:
        """Look how old the server is; raises ``Unfit``."""
        said = client._server_info.get("version")  # noqa: SLF001 - the library parses, and raises
        warning = check_version(said, allow_old=self._address.allow_old_broker)
        if warning:
            log.warning("%s: %s", self._name, warning)

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
        """Where the broker is, or was last: an address without a name or a password."""
        url = None if self._client is None else self._client.connected_url
        if url is not None:
            self._last = url.netloc.rpartition("@")[2]
        return self._last

    def _failed(self, error: BaseException) -> None:
        """Keep why an attempt failed. A broker that refuses may cut its own word off."""
        failure = failure_of(error)
        if failure.reason is not Reason.OTHER or self._failure is None:
            self._failure = failure

    def _missing(self, reason: str) -> None:
        """Say that there is no broker, once for each reason until there is one."""
        if reason not in self._reasons:
            self._reasons.add(reason)
            log.warning("%s: no broker at %s (%s)", self._name, self._place, reason)

    async def _on_error(self, error: Exception) -> None:
        if self.connected:
            log.warning("%s: %s at %s", self._name, type(error).__name__, self._place)
        else:
            self._failed(error)
            self._missing(type(error).__name__)

    async def _on_disconnect(self) -> None:
        if not self._closing:
            log.warning("%s: lost %s; connecting again", self._name, self._place)

    async def _on_reconnected(self) -> None:
        client = self._client
        if client is None:
            return
        try:
            self._check(client)
        except Unfit as error:
            log.error("%s: leaves the broker: %s", self._name, error)
            # That it is closed makes a new one. Not from here: closing ends what calls this.
            self._leaving = asyncio.get_running_loop().create_task(_abandon(client))
            return
        self._times += 1
        self._failure = None
        self._reasons.clear()
        log.info("%s: connected again to %s", self._name, self._place)
        for callback in self._on_reconnect:
            callback()

    async def _on_closed(self) -> None:
        if not self._closing and not self._building:
            log.warning("%s: closed by the broker, connecting anew", self._name)
            self._rebuilding = asyncio.get_running_loop().create_task(self._rebuild())

    async def _rebuild(self) -> None:
        await self._build()
        await self._on_reconnected()


async def _abandon(client: Client | None) -> None:
    """Close a client that is replaced, so that nothing is delivered twice."""
    if client is not None:
        with contextlib.suppress(Exception):
            await client.close()


def _password(address: BusAddress) -> str:
    # The broker's password opens no key: it may be text.
    try:
        return address.password_file.read_text("utf-8").strip()
    except OSError as error:
        raise SecretFileError(f"cannot read {address.password_file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SecretFileError(f"{address.password_file} is no UTF-8 text") from None


def _ours(error: Exception) -> KcmError:
    match error:
        case nats_errors.NoRespondersError():
            return NobodyListens()
        case nats_errors.MaxPayloadError():
            return KcmError(Code.TOO_LARGE)
        case TimeoutError():
            return KcmError(Code.DEADLINE_EXCEEDED, "no answer in time")
        case _:
            return KcmError(Code.UNAVAILABLE, "the broker cannot be reached")
