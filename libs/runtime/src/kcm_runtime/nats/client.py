"""A NATS client that keeps reading, whatever a message contains.

Every client of an account can send messages that the library cannot read: headers without a
version, a subject that is not UTF-8 or contains a vertical tab. The library then stops reading for
good without an error, and still reports that it is connected; a stored message is delivered to it
again and again. Here:

- unreadable headers are ignored;
- a subject keeps its bytes: bytes that are not UTF-8 are written back unchanged;
- a stored message has no status, whatever its sender wrote: only the broker's own messages have;
- an address with ``tls`` requires it: no password is sent to a broker that offers no TLS;
- if reading ends nevertheless, that is an outage: it is logged, and the client reconnects;
- a request that the broker refuses fails at once, and not at the end of its time;
- connecting, a request and a flush do not lose the cancellation of their task;
- closing ends everything, also after an earlier closing that was cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from typing import Any, Final

from nats import errors as nats_errors
from nats.aio.client import Client, Srv
from nats.aio.msg import Msg
from nats.protocol.parser import Parser

from kcm_runtime.cancellation import cancellable
from kcm_runtime.nats.connect_failures import Refused, Unencrypted

log = logging.getLogger(__name__)

ABANDON_S: Final = 5
"""Seconds for the end of a client that is replaced."""

_END: Final = b"\r\n"
_STORED: Final = b"$JS.ACK."
"""Prefix of the reply subject of every message that a stream delivers."""

_ODD: Final = "surrogateescape"
"""Bytes that are not UTF-8 become surrogates, which no text contains."""

_REFUSED: Final = re.compile(r"permissions violation for publish to \"([^\"]*)\"", re.IGNORECASE)

_ASKED_MAX: Final = 1024
"""Answered requests whose subjects are kept before they are forgotten together."""


def _quiet_end(record: logging.LogRecord) -> bool:
    """Drop what asyncio warns of at the end of each connection with TLS: it means nothing."""
    return "eof_received" not in record.getMessage()


logging.getLogger("asyncio").addFilter(_quiet_end)


class Lines(Parser):
    """Parses the broker's lines; the parts of a line are split at spaces and left unchanged."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self._client: Final = client

    def reset(self) -> None:
        """Forget the unread rest of a connection that was left."""
        super().reset()
        self._rest = bytearray()
        self._message: tuple[int, bytes, bytes, int, int] | None = None

    async def parse(self, data: bytes = b"") -> None:
        """Parse received bytes; raises ``ProtocolError`` for what no broker sends."""
        self._rest.extend(data)
        while self._rest:
            if self._message is None:
                end = self._rest.find(_END)
                if end < 0:
                    return
                line = bytes(self._rest[: end + len(_END)])
                del self._rest[: len(line)]
                if line.startswith((b"MSG ", b"HMSG ")):
                    self._message = _head(line)
                else:
                    await self._other(line)
                continue
            sid, subject, reply, header, size = self._message
            if len(self._rest) < size + len(_END):
                return
            body = bytes(self._rest[:size])
            del self._rest[: size + len(_END)]
            self._message = None
            await self._client._process_msg(  # noqa: SLF001 - the library's own method
                sid, subject, reply, body[header:], body[:header]
            )

    async def _other(self, line: bytes) -> None:
        await super().parse(line)
        if self.buf:
            raise nats_errors.ProtocolError("a line that no broker sends")


def _head(line: bytes) -> tuple[int, bytes, bytes, int, int]:
    """Return subscription, subject, reply, size of the headers and total size of a message."""
    kind, subject, sid, *more = line[: -len(_END)].split(b" ")
    try:
        reply = more.pop(0) if len(more) > (2 if kind == b"HMSG" else 1) else b""
        header, size = (0, *map(int, more))[-2:]
        if not 0 <= header <= size:
            raise ValueError(line)
        return int(sid), subject, reply, header, size
    except ValueError:
        raise nats_errors.ProtocolError("a message line that no broker sends") from None


class ReadingClient(Client):
    """A client that no message can stop."""

    def __init__(self) -> None:
        super().__init__()
        self._ps = Lines(self)
        self._connecting: tuple[asyncio.Task[Any] | None, int] = (None, 0)
        self._asked: dict[str, str] = {}
        """By the last token of a request's inbox: its subject, in lower case."""

    async def connect(self, *args: Any, **options: Any) -> None:
        """As in the library, except that a cancellation ends it also between two attempts."""
        task = asyncio.current_task()
        self._connecting = task, 0 if task is None else task.cancelling()
        await cancellable(super().connect(*args, **options))

    async def _connect_to_server(self, s: Srv) -> None:
        # The library drops a cancellation that arrives during an attempt, and then tries again.
        task, before = asyncio.current_task(), 0
        if task is self._connecting[0]:
            before = self._connecting[1]
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError
        await super()._connect_to_server(s)

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,  # noqa: ASYNC109 - the library's own
        old_style: bool = False,  # noqa: FBT001, FBT002 - the library's own
        headers: dict[str, Any] | None = None,
    ) -> Msg:
        """As in the library, except that a cancellation ends it also while the reply arrives."""
        return await cancellable(
            super().request(subject, payload, timeout, old_style=old_style, headers=headers)
        )

    async def publish(
        self,
        subject: str,
        payload: bytes = b"",
        reply: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        """As in the library; the subject of a request is kept for ``_process_err``."""
        if reply and self._resp_map:
            token = reply.rpartition(".")[2]
            if token in self._resp_map:
                self._asked[token] = subject.lower()
                if len(self._asked) > _ASKED_MAX + 2 * len(self._resp_map):
                    live = self._resp_map
                    self._asked = {one: of for one, of in self._asked.items() if one in live}
        await super().publish(subject, payload, reply, headers)

    async def _process_err(self, err_msg: str) -> None:
        # The broker names the subject, and the library changes it to lower case.
        if refused := _REFUSED.search(err_msg):
            for token, future in list(self._resp_map.items()):
                if self._asked.get(token) == refused[1].lower() and not future.done():
                    future.set_exception(Refused())
        await super()._process_err(err_msg)

    async def flush(self, timeout: int = 10) -> None:  # noqa: ASYNC109 - the library's own
        """As in the library, except that a cancellation ends it also while the reply arrives.

        The library writes its question before what waits to be written, so that is written first.
        """
        if self.is_connected:
            await cancellable(self._flush_pending(force_flush=True))
        await cancellable(super().flush(timeout))

    async def close(self) -> None:
        """As in the library, except that nothing is left of a closing that was cancelled."""
        try:
            await super().close()
        finally:
            tasks = [self._reading_task, self._ping_interval_task, self._flusher_task]
            tasks += [one._wait_for_msgs_task for one in self._subs.values()]  # noqa: SLF001
            for task in tasks:
                if task is not None and task is not asyncio.current_task():
                    task.cancel()
            if self._transport is not None:
                self._transport.close()  # type: ignore[no-untyped-call]
                # The library leaves the plain stream under TLS open.
                bare = getattr(self._transport, "_bare_io_writer", None)
                if bare is not None and bare is not getattr(self._transport, "_io_writer", None):
                    bare.transport.abort()

    def abort(self) -> None:
        """Drop the connection at once: TLS would wait for the end of the other side."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:  # noqa: FBT001, FBT002 - the library's own
        server = self._current_server
        # Before the login is sent. An attacker in between may have removed the word from the line.
        if initial_connection and server is not None and server.uri.scheme == "tls":
            if not (info.get("tls_required") or info.get("tls_available")):
                raise Unencrypted
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        try:
            return await super()._process_headers(headers)
        except Exception:  # noqa: BLE001 - every error of the library
            return None

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        if headers is not None and reply.startswith(_STORED):
            headers = {name: value for name, value in headers.items() if name != "Status"}
        return self.msg_class(
            subject=subject.decode(errors=_ODD),
            reply=reply.decode(errors=_ODD),
            data=data,
            headers=headers,
            _client=self,
            _sid=sid,
        )

    async def _send_publish(
        self,
        subject: str,
        reply: str,
        payload: bytes,
        payload_size: int,
        headers: dict[str, Any] | None,
    ) -> None:
        if not _is_odd(subject) and not _is_odd(reply):
            await super()._send_publish(subject, reply, payload, payload_size, headers)
            return
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        header = f"NATS/1.0\r\n{lines}\r\n".encode()
        sizes = f"{len(header)} {len(header) + len(payload)}"
        line = f"HPUB {subject} {reply} {sizes}\r\n".encode(errors=_ODD)
        await self._send_command(line + header + payload + _END)
        await self._flush_pending()

    async def _read_loop(self) -> None:
        await super()._read_loop()
        task = asyncio.current_task()
        ended = self.is_closed or self.is_reconnecting or (task is not None and task.cancelling())
        if not ended:
            log.error("reading from the broker ended with an error; connecting again")
            await self._process_op_err(nats_errors.ProtocolError("reading ended"))


def _is_odd(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return True
    return False


async def abandon(client: Client | None) -> None:
    """Close a client that is replaced: no message is delivered twice. The library may not end."""
    if client is not None:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(client.close(), ABANDON_S)
