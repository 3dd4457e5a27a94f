"""An HTTP server with a limit of concurrent connections, and a time limit for each of them."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

CONNECTIONS_MAX: Final = 16
"""Concurrent connections; a further one is answered with 503."""

CONNECTION_S: Final = 20.0
"""Seconds for which a connection may last, however slowly it sends."""

_FULL: Final = b"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


class BoundedServer(ThreadingHTTPServer):
    """The server of the standard library with limits. One request for each connection."""

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
        """End a connection and remove it from the count."""
        with self._lock:
            self._until.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Close connections that last too long; called twice a second while this serves."""
        now = time.monotonic()
        with self._lock:
            for request, until in self._until.items():
                if now >= until:
                    with contextlib.suppress(OSError):
                        request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Log the class of an error, without its text, which may contain data of a client."""
        kind = sys.exc_info()[0]
        sys.stderr.write(f"hints: a push failed: {kind.__name__ if kind else 'unknown'}\n")
