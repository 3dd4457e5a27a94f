"""The process that accepts a Core's connections and starts a fork server for each."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys

import pytest
from kcm_core.unsealer import listen
from kcm_core.unsealer.kinds import Kind, hello


@pytest.fixture
def servers(monkeypatch):
    """What stands for the fork servers: processes that end when a test closes their input."""
    made: list[subprocess.Popen[bytes]] = []

    def start(*_):
        code = "import sys; sys.stdin.read()"
        made.append(subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE))
        return made[-1]

    monkeypatch.setattr(listen, "start_server", start)
    yield made
    for one in made:
        one.kill()
        one.communicate()


@pytest.fixture
def listening(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as made:
        made.bind(str(tmp_path / "s"))
        made.listen(8)
        yield made


@pytest.fixture
def listener(listening):
    return listen.Listener(listening, os.geteuid(), {})


def connect(listening):
    core = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    core.connect(listening.getsockname())
    core.send(hello(Kind("pkcs11")))
    return core


def end(server):
    server.stdin.close()
    pidfd = os.pidfd_open(server.pid)
    select.select([pidfd], [], [])
    os.close(pidfd)


@pytest.mark.parametrize("first", ["core", "server"])
def test_a_core_and_its_fork_server_end_before_the_listener_looks(
    listener, listening, servers, first
):
    core = connect(listening)
    listener.step()
    if first == "core":
        core.close()
    end(servers[0])
    core.close()
    listener.step()
    with connect(listening):
        listener.step()
        assert listener.served == 1
        assert len(servers) == 2


def test_a_fork_server_that_cannot_be_watched_is_ended(
    listener, listening, servers, monkeypatch, caplog
):
    def refuse(_pid):
        raise OSError(24, "too many open files")

    monkeypatch.setattr(listen.os, "pidfd_open", refuse)
    with connect(listening):
        listener.step()
    assert servers[0].returncode is not None
    assert "could not be served" in caplog.text
