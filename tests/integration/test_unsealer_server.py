"""The fork server from the other end of its socket: requests that no Core would send."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from kcm_core.providers.softkey import provider as softkey
from kcm_core.providers.state import L1State
from kcm_core.unsealer.frames import (
    HEADER_SIZE,
    REQUEST_MAX,
    Ask,
    Header,
    Operation,
    read_told,
    request_parts,
    state_of,
)
from kcm_core.unsealer.server import CHILDREN_MAX

from tests.integration.unsealing import PATIENCE_S, children, gone, hanging, until


class Harness:
    """A server of our own, spoken to in plain blocking calls."""

    def __init__(self):
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-m", "kcm_core.unsealer", str(theirs.fileno()), "softkey"],
                pass_fds=[theirs.fileno()],
                env={"KCM_DEVELOPMENT": "1"},
            )

    def send(self, packet, pipes=1):
        """Send a packet with that many write ends; return the read ends."""
        ends = [os.pipe2(os.O_CLOEXEC) for _ in range(pipes)]
        socket.send_fds(self.socket, [packet], [write for _, write in ends])
        for _, write in ends:
            os.close(write)
        return [read for read, _ in ends]

    def ask(self, packet):
        """Send a packet and read all that comes back: a state, the texts, the payload."""
        (read,) = self.send(packet)
        return answer(read)

    def ping(self):
        assert self.ask(packet(Operation.PING, uri=""))[0] is L1State.ENABLED
        assert self.process.poll() is None

    def close(self):
        self.socket.close()
        self.process.wait(PATIENCE_S)


def answer(read):
    with os.fdopen(read, "rb") as pipe:
        data = pipe.read()
    if not data:
        return None
    header = Header.unpack(data[:HEADER_SIZE])
    payload = data[HEADER_SIZE : HEADER_SIZE + header.payload_size]
    return state_of(header), read_told(data[HEADER_SIZE + header.payload_size :]), payload


@pytest.fixture
def server():
    harness = Harness()
    harness.ping()
    yield harness
    harness.close()
    assert harness.process.returncode == 0


def packet(operation, payload=b"", *, uri, deadline_ms=30_000, mechanism=""):
    ask = Ask(uri=uri, context=b"c", mechanism=mechanism, deadline_ms=deadline_ms)
    header, meta = request_parts(operation, ask, len(payload))
    return header + payload + meta


GOOD = packet(Operation.UNWRAP, b"blob", uri="softkey:/nowhere", mechanism="aes-gcm")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00",
        b"\xff" * 100,
        os.urandom(REQUEST_MAX),
        bytes(REQUEST_MAX + 1),
        bytes(REQUEST_MAX * 2),
        GOOD[:-1],
        GOOD + b"\x00",
        b"\x09" + GOOD[1:],
        Header(Operation.UNWRAP, 0, 0).pack(),
        Header(Operation.UNWRAP, 4, 4).pack() + b"blobjunk",
        GOOD.replace(b"deadline_ms", b"deadline_mz"),
        GOOD.replace(b"aes-gcm", b"\xff\xff\xff-gcm"),
    ],
)
def test_a_malformed_request_is_answered_and_harms_nobody(server, garbage):
    state, told, payload = server.ask(garbage)
    assert (state, told.cls, payload) == (L1State.INVALID, "FrameError", b"")
    server.ping()


def test_an_empty_datagram_is_not_the_end(server):
    assert server.ask(b"")[0] is L1State.INVALID
    server.ping()


@pytest.mark.parametrize("pipes", [0, 2, 5])
def test_a_request_without_exactly_one_pipe_is_dropped(server, pipes):
    if pipes == 0:
        server.socket.send(GOOD)
    ends = server.send(GOOD, pipes) if pipes else []
    server.ping()
    for read in ends[1:]:
        assert answer(read) is None  # nothing, and nobody holds it open
    for read in ends[:1]:
        os.close(read)


def test_a_descriptor_that_cannot_be_written_harms_nobody(server):
    with Path("/dev/null").open("rb") as null:
        socket.send_fds(server.socket, [b"garbage"], [null.fileno()])
        socket.send_fds(server.socket, [GOOD], [null.fileno()])
    server.ping()


def test_a_core_that_does_not_wait_for_its_answer_harms_nobody(server):
    for request in (b"garbage", GOOD, packet(Operation.PING, uri="")):
        (read,) = server.send(request)
        os.close(read)
    server.ping()


def test_a_bad_uri_is_answered_without_a_child(server):
    state, told, _ = server.ask(packet(Operation.WRAP, b"x", uri="softkey:relative"))
    assert (state, told.cls) == (L1State.UNREACHABLE, "L1UriError")


def test_a_request_for_another_provider_is_refused_without_a_child(server):
    uri = "pkcs11:token=t;object=o?module-path=/usr/lib/softhsm/libsofthsm2.so"
    state, told, _ = server.ask(packet(Operation.WRAP, b"x", uri=uri))
    assert (state, told.cls) == (L1State.INVALID, "FrameError")
    assert not children(server.process.pid)


async def test_a_child_ends_itself_at_its_deadline(server, tmp_path):
    softkey.create(tmp_path / "key")
    with hanging(tmp_path / "key"):
        request = packet(Operation.WRAP, b"x", uri=f"softkey:{tmp_path / 'key'}", deadline_ms=1000)
        (read,) = server.send(request)
        await until(lambda: children(server.process.pid))
        server.ping()  # it has finished the request, and closed its own copy of the pipe
        server.process.send_signal(signal.SIGSTOP)  # it cannot help now
        try:
            assert answer(read) is None
        finally:
            server.process.send_signal(signal.SIGCONT)
    server.ping()


async def test_a_child_keeps_nothing_of_the_server(tmp_path):
    softkey.create(tmp_path / "key")
    harness = Harness()
    harness.ping()
    with hanging(tmp_path / "key"):
        (read,) = harness.send(packet(Operation.WRAP, b"x", uri=f"softkey:{tmp_path / 'key'}"))
        await until(lambda: children(harness.process.pid))
        (child,) = children(harness.process.pid)
        harness.process.kill()
        harness.process.wait(PATIENCE_S)
        harness.socket.settimeout(PATIENCE_S)
        # The end of the socket shows although the child lives: it has no copy of the server's.
        assert harness.socket.recv(1) == b""
        assert not gone(child)
        os.kill(child, signal.SIGKILL)
        assert answer(read) is None
    harness.socket.close()


async def test_when_the_core_is_gone_server_and_children_end(tmp_path):
    softkey.create(tmp_path / "key")
    harness = Harness()
    harness.ping()
    with hanging(tmp_path / "key"):
        (read,) = harness.send(packet(Operation.WRAP, b"x", uri=f"softkey:{tmp_path / 'key'}"))
        await until(lambda: children(harness.process.pid))
        (child,) = children(harness.process.pid)
        harness.close()
        assert harness.process.returncode == 0
        assert gone(child)
        assert answer(read) is None


async def test_when_the_core_is_gone_a_full_server_ends_too(tmp_path):
    softkey.create(tmp_path / "key")
    harness = Harness()
    with hanging(tmp_path / "key"):
        request = packet(Operation.WRAP, b"x", uri=f"softkey:{tmp_path / 'key'}")
        ends = [end for _ in range(CHILDREN_MAX + 4) for end in harness.send(request)]
        await until(lambda: len(children(harness.process.pid)) >= CHILDREN_MAX)
        for _ in range(50):
            assert len(children(harness.process.pid)) == CHILDREN_MAX
        harness.close()
        assert harness.process.returncode == 0
        assert [answer(end) for end in ends] == [None] * (CHILDREN_MAX + 4)


def test_ctrl_c_is_for_the_core(server):
    server.process.send_signal(signal.SIGINT)
    server.ping()
