"""An HTTP server with bounds: so many connections at once, and each for so long."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

CONNECTIONS_MAX: Final = 16
"""Connections at once; a further one is answered with 503."""

CONNECTION_S: Final = 20.0
"""Seconds for which a connection may last, however slowly it sends."""

_FULL: Final = b"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


class BoundedServer(ThreadingHTTPServer):
    """As the one of the standard library, with bounds. One request for each connection."""

    daemon_threads = True

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[BaseHTTPRequestHandler],
        connection_s: float = CONNECTION_S,
    ) -> None:
        self._connection_s: Final = connection_s
        self._lock: Final = threading.Lock()
        self._until: Final[dict[socket.socket, float]] = {}
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hand the connection to a thread, or refuse it."""
        with self._lock:
            full = len(self._until) >= CONNECTIONS_MAX
            if not full:
                self._until[request] = time.monotonic() + self._connection_s
        if full:
            with contextlib.suppress(OSError):
                request.setblocking(False)
                request.send(_FULL)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        """End a connection and count it no more."""
        with self._lock:
            self._until.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Cut what lasts too long; called twice a second while this serves."""
        now = time.monotonic()
        with self._lock:
            for request, until in self._until.items():
                if now >= until:
                    with contextlib.suppress(OSError):
                        request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Tell the kind of a fault, without its text: what a client sent is not ours to log."""
        kind = sys.exc_info()[0]
        sys.stderr.write(f"hints: a push failed: {kind.__name__ if kind else 'unknown'}\n")
