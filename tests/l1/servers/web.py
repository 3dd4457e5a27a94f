"""An HTTPS server on the loopback that can be told to misbehave (``stand.Trouble``)."""

from __future__ import annotations

import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.l1.servers import tls
from tests.l1.stand import Files, Trouble

DELAY_S = 0.5
"""Seconds by which an answer comes later when it is told to be late."""

SKEW_S = 600
"""Seconds that the server's clock is ahead when it is told to be."""

BODY_MAX = 1 << 20
ELSEWHERE = "/elsewhere"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


Serve = Callable[[Asked], Answer]


def now(files: Files) -> float:
    """The server's time, in seconds of Unix time."""
    return time.time() + (SKEW_S if files.trouble is Trouble.SKEW else 0)


class Server(ThreadingHTTPServer):
    """Serves one stand; a trouble affects every request in the same way."""

    daemon_threads = True

    def __init__(self, directory: Path, files: Files, serve: Serve) -> None:
        super().__init__((tls.HOST, 0), Handler)
        self.socket = tls.context(directory).wrap_socket(self.socket, server_side=True)
        self.files = files
        self.serve = serve
        self.forever = threading.Event()
        """Never set: a request that hangs waits for it."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 60
    disable_nagle_algorithm = True  # or an answer waits for the peer's delayed acknowledgement

    def _handle(self) -> None:
        asked, files = self._asked(), self.server.files
        trouble = files.trouble
        if trouble is Trouble.DELAY:
            time.sleep(DELAY_S)
        answer = self.server.serve(asked)
        if trouble is Trouble.HANG:
            self.server.forever.wait()
        if trouble is Trouble.RESET:
            self._reset()
            return
        if trouble is Trouble.REDIRECT:
            if self.path == ELSEWHERE:
                files.called("followed")
            answer = Answer(307, b"", {"Location": ELSEWHERE})
        if trouble is Trouble.ENDLESS:
            self._endless()
        self._send(answer)

    do_GET = do_POST = _handle  # noqa: N815 - as the library looks for them

    def _asked(self) -> Asked:
        size = int(self.headers.get("Content-Length") or 0)
        assert size <= BODY_MAX
        headers = {name.lower(): value for name, value in self.headers.items()}
        return Asked(self.command, self.path, headers, self.rfile.read(size))

    def _send(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        self.send_header("Date", formatdate(now(self.server.files), usegmt=True))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def _endless(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        sent = 0
        try:
            while True:
                self.wfile.write(bytes(BODY_MAX))
                sent += BODY_MAX
        except OSError:  # the other side has gone
            self.server.files.called(f"sent:{sent}")
            raise

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        print(format % args, file=sys.stderr, flush=True)


def run(directory: Path, files: Files, serve: Serve, ready: Callable[[int], None]) -> None:
    """Serve until SIGTERM; calls ``ready`` with the port."""
    server = Server(directory, files, serve)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ready(server.server_address[1])
    server.serve_forever()
