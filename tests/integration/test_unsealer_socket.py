"""An unsealer under a user of its own, over a socket as a service manager makes it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys

import pytest
from kcm_core.providers.softkey import provider as softkey
from kcm_core.providers.state import L1Error, L1State
from kcm_core.unsealer.confinement import landlock
from kcm_core.unsealer.confinement.confine import SWITCH, SWITCHED_OFF
from kcm_core.unsealer.kinds import Kind, hello
from kcm_core.unsealer.peer import Unfit, check_file
from kcm_core.unsealer.peer import other_user as another

from tests.integration import softhsm
from tests.integration.other_user import UID, OtherUser, open_directory, other_user
from tests.integration.unsealing import failure, until

CONTEXT = b"context"
BLOB = bytes(range(72))
SLOW_S = 30.0
ROOT = os.geteuid() == 0
"""Only root starts a process of another user."""


@pytest.fixture
def directory():
    with open_directory() as made:
        yield made


def owned(path):
    """Give a directory and all in it to the other user."""
    for one in (path, *path.rglob("*")):
        os.chown(one, UID, UID)
    return path


async def used(unsealer, uri):
    wrapped = await unsealer.wrap(uri, BLOB, CONTEXT, deadline_s=SLOW_S)
    out = bytearray(len(BLOB))
    await unsealer.unwrap_into(
        uri, wrapped.blob, CONTEXT, wrapped.mechanism, memoryview(out), deadline_s=SLOW_S
    )
    assert bytes(out) == BLOB
    return wrapped.principal


if ROOT:

    @pytest.fixture
    def uri(directory):
        softkey.create(directory / "key")
        return f"softkey:{owned(directory / 'key')}"

    async def test_a_softkey_of_the_other_user_is_used(directory, uri):
        with other_user(directory, {"KCM_DEVELOPMENT": "1"}) as running:
            unsealer = running.unsealer()
            assert str(unsealer.isolation) == "degraded (the unsealer was not reached yet)"
            await unsealer.start()
            assert await used(unsealer, uri) == f"uid-{UID}"
            assert unsealer.isolation.full
            await unsealer.close()
            assert running.stop() == 0
        assert "could not be served" not in running.log

    async def test_an_hsm_of_the_other_user_is_used(directory):
        hsm = softhsm.make(directory / "hsm")
        hsm.run("create-aes", "root")
        owned(hsm.directory)
        with other_user(directory, hsm.environment) as running:
            unsealer = running.unsealer()
            await used(unsealer, hsm.uri("root"))
            await unsealer.close()

    @pytest.mark.parametrize("switch", ["on", "off"])
    async def test_what_its_confinement_lacks_is_in_its_log(directory, uri, switch):
        with other_user(directory, {"KCM_DEVELOPMENT": "1", SWITCH: switch}) as running:
            unsealer = running.unsealer()
            await used(unsealer, uri)
            await unsealer.close()
        lacks = landlock.lacks(landlock.abi()) if switch == "on" else (SWITCHED_OFF,)
        assert ("the confinement lacks" in running.log) == bool(lacks)
        assert "; ".join(lacks) in running.log

    async def test_it_waits_for_an_unsealer_that_the_service_manager_starts(directory, uri):
        running = OtherUser(directory, {"KCM_DEVELOPMENT": "1"})
        unsealer = running.unsealer()
        started = asyncio.create_task(used(unsealer, uri))
        await asyncio.sleep(0)
        running.start()
        try:
            assert await started == f"uid-{UID}"
        finally:
            await unsealer.close()
            running.stop()
            running.listening.close()

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    async def test_while_it_restarts_a_key_is_unreachable_and_then_it_is_back(
        directory, uri, number
    ):
        with other_user(directory, {"KCM_DEVELOPMENT": "1"}) as running:
            unsealer = running.unsealer()
            await used(unsealer, uri)
            running.stop(number)
            if number == signal.SIGTERM:
                wrapping = unsealer.wrap(uri, BLOB, CONTEXT, deadline_s=0.3)
                assert (await failure(wrapping)).state is L1State.UNREACHABLE
            running.start()

            async def back():
                try:
                    return await used(unsealer, uri)
                except L1Error as error:
                    assert error.state is L1State.UNREACHABLE
                    return None

            async with asyncio.timeout(60):
                while await back() is None:  # noqa: ASYNC110 - another process, which sets no event
                    await asyncio.sleep(0.05)
            await unsealer.close()

    async def test_an_unsealer_of_another_user_than_configured_is_not_used(directory, uri):
        with other_user(directory, {"KCM_DEVELOPMENT": "1"}) as running:
            reached = running.unsealer()
            await used(reached, uri)
            await reached.close()
            os.chown(running.socket, 0, 0)
            unsealer = running.unsealer(UID + 1)
            error = await failure(unsealer.wrap(uri, BLOB, CONTEXT, deadline_s=SLOW_S))
            assert error.state is L1State.UNREACHABLE
            assert f"user {UID} listens" in error.detail
            assert not unsealer.isolation.full
            await unsealer.close()

    async def test_another_user_than_the_core_is_not_served(directory, uri):
        running = OtherUser(directory, {"KCM_DEVELOPMENT": "1"}, core_uid=UID + 1)
        running.start()
        unsealer = running.unsealer()
        try:
            error = await failure(unsealer.wrap(uri, BLOB, CONTEXT, deadline_s=2.0))
            assert error.state is L1State.UNREACHABLE
            await until(lambda: "user 0 may not connect" in running.log)
        finally:
            await unsealer.close()
            running.stop()
            running.listening.close()

    @pytest.mark.parametrize(
        "packet", [b"x", hello(Kind("other")), hello(Kind("awskms", "relative")), bytes(9000)]
    )
    async def test_a_connection_with_a_bad_first_packet_is_closed(directory, uri, packet):
        with other_user(directory, {"KCM_DEVELOPMENT": "1"}) as running:
            unsealer = running.unsealer()
            await used(unsealer, uri)
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as ours:
                ours.connect(str(running.socket))
                ours.settimeout(SLOW_S)
                ours.send(packet)
                assert ours.recv(1) == b""
            await used(unsealer, uri)
            await unsealer.close()

    async def test_when_a_core_leaves_its_servers_end(directory, uri):
        with other_user(directory, {"KCM_DEVELOPMENT": "1"}) as running:
            unsealer = running.unsealer()
            await used(unsealer, uri)
            assert running.servers
            await unsealer.close()
            await until(lambda: not running.servers)


def test_no_process_is_its_own_counterpart():
    with pytest.raises(Unfit, match="own"):
        another(None, os.geteuid(), "the unsealer's user")
    with pytest.raises(Unfit, match="no user"):
        another("no-such-user-here", None, "the unsealer's user")
    assert another(None, os.geteuid() + 1, "the unsealer's user") == os.geteuid() + 1


def test_a_socket_that_others_could_have_made_is_not_used(directory):
    path = directory / "socket"
    me = frozenset({0, os.geteuid()})
    with pytest.raises(Unfit, match="No such file"):
        check_file(path, me)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        path.chmod(0o660)
        check_file(path, me)
        with pytest.raises(Unfit, match="belongs to user"):
            check_file(path, frozenset({os.geteuid() + 1}))
        path.chmod(0o662)
        with pytest.raises(Unfit, match="other users may write"):
            check_file(path, me)
        path.chmod(0o660)
        directory.chmod(0o777)
        with pytest.raises(Unfit, match="other users may write"):
            check_file(path, me)
        directory.chmod(0o755)
    path.unlink()
    path.write_text("")
    with pytest.raises(Unfit, match="no socket"):
        check_file(path, me)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--core-uid", str(os.geteuid())], "own"),
        (["--core-user", "no-such-user-here"], "no user"),
        (["--core-uid", str(os.geteuid() + 1)], "no socket was passed"),
    ],
)
def test_an_unsealer_that_was_started_wrongly_says_so(arguments, says):
    done = subprocess.run(
        [sys.executable, "-I", "-m", "kcm_core.unsealer.listen", *arguments],
        env={}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert says in done.stderr
