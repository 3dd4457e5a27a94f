"""Ways to a stand besides the straight one: an IPv6 address, and a proxy."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

LINE_MAX: Final = 4096


@dataclass(slots=True)
class Door:
    """Where it is, and whom it was asked for."""

    port: int
    asked: list[str] = field(default_factory=list)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _join(one: socket.socket, other: socket.socket) -> None:
    back = threading.Thread(target=_pump, args=(other, one), daemon=True)
    back.start()
    _pump(one, other)
    back.join()


@contextlib.contextmanager
def _admission(server: socketserver.ThreadingTCPServer, door: Door) -> Iterator[Door]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield door
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False


class _Server6(_Server):
    address_family = socket.AF_INET6


@contextlib.contextmanager
def ipv6(port: int) -> Iterator[Door]:
    """A port of ``[::1]`` that leads to one of ``127.0.0.1``."""

    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", port)) as other:
                _join(self.request, other)

    server = _Server6(("::1", 0), Relay)
    with _admission(server, Door(server.server_address[1])) as door:
        yield door


@contextlib.contextmanager
def proxy() -> Iterator[Door]:
    """An HTTP proxy for this machine (RFC 9110, section 9.3.6); it refuses everybody else."""
    door = Door(0)

    class Connect(socketserver.StreamRequestHandler):
        rbufsize = 0

        def handle(self) -> None:
            method, target, _ = self.rfile.readline(LINE_MAX).decode("ascii").split(" ")
            while self.rfile.readline(LINE_MAX).strip():
                pass
            assert method == "CONNECT", method
            door.asked.append(target)
            host, _, port = target.rpartition(":")
            if host not in {"127.0.0.1", "[::1]"}:
                self.request.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")
                return
            with (
                contextlib.suppress(ConnectionRefusedError),
                socket.create_connection((host.strip("[]"), int(port))) as other,
            ):
                self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                _join(self.request, other)

    server = _Server(("127.0.0.1", 0), Connect)
    door.port = server.server_address[1]
    with _admission(server, door):
        yield door
