"""The unsealer with its real server and children: what may break, breaks here."""

import asyncio
import hashlib
import os
import signal

import pytest
from kcm_core.providers.softkey import provider as softkey
from kcm_core.providers.state import L1Error, L1State
from kcm_core.unsealer.client import CALLS_IN_FLIGHT_MAX, Unsealer
from kcm_core.unsealer.fork_server import ForkServer
from kcm_core.unsealer.kinds import Kind
from kcm_core.unsealer.server import CHILDREN_MAX

from tests.integration.unsealing import (
    PATIENCE_S,
    children,
    failure,
    flip,
    gone,
    hanging,
    open_descriptors,
    until,
)

BLOB = bytes(range(72))
CONTEXT = b"context"
SLOW_S = 30.0
"""A deadline that no test reaches."""


@pytest.fixture
def directory(tmp_path):
    softkey.create(tmp_path / "key")
    return tmp_path / "key"


@pytest.fixture
def uri(directory):
    return f"softkey:{directory}"


def others(directory, count):
    """URIs of as many keys that are this one: calls of one URI take turns, those of two do not."""
    found = []
    for number in range(count):
        other = directory.with_name(f"{directory.name}-{number}")
        other.symlink_to(directory)
        found.append(f"softkey:{other}")
    return found


@pytest.fixture
async def unsealer():
    unsealer = Unsealer({"KCM_DEVELOPMENT": "1"})
    await unsealer.start()
    yield unsealer
    server = unsealer.server_pid
    await unsealer.close()
    assert server is None or gone(server)


async def opened(unsealer, uri, wrapped, *, context=CONTEXT, size=72, deadline_s=SLOW_S):
    """Unwrap into memory that is full of something, and return what stands there in the end."""
    out = bytearray(b"\xaa" * size)
    try:
        await unsealer.unwrap_into(
            uri, wrapped.blob, context, wrapped.mechanism, memoryview(out), deadline_s=deadline_s
        )
    except BaseException:
        assert bytes(out) == bytes(size), "a failure must leave zeros"
        raise
    out.append(0)  # raises BufferError as long as somebody keeps a view of the memory
    return bytes(out[:size])


def wrapping(unsealer, uri, plaintext=BLOB):
    return unsealer.wrap(uri, plaintext, CONTEXT, deadline_s=SLOW_S)


async def no_child(unsealer):
    """What was asked before has ended: the next child is the one that a test is about."""
    await until(lambda: not children(unsealer.server_pid))


async def one_child(unsealer):
    await until(lambda: len(children(unsealer.server_pid)) == 1)
    return next(iter(children(unsealer.server_pid)))


async def test_a_call_leaves_no_child_and_no_descriptor(unsealer, uri):
    wrapped = await wrapping(unsealer, uri)
    before = open_descriptors()
    assert await opened(unsealer, uri, wrapped) == BLOB
    assert (await failure(opened(unsealer, uri, wrapped, context=b"other"))).state is (
        L1State.INVALID
    )
    assert open_descriptors() == before
    await until(lambda: not children(unsealer.server_pid))


async def test_without_development_a_softkey_is_unreachable(uri):
    unsealer = Unsealer({})
    await unsealer.start()
    try:
        error = await failure(wrapping(unsealer, uri))
    finally:
        await unsealer.close()
    assert error.state is L1State.UNREACHABLE
    assert "development" in error.detail


async def test_the_servers_environment_is_only_what_it_was_given(directory, uri, monkeypatch):
    monkeypatch.setenv("KCM_DEVELOPMENT", "1")
    unsealer = Unsealer({})
    await unsealer.start()
    try:
        assert (await failure(wrapping(unsealer, uri))).state is L1State.UNREACHABLE
    finally:
        await unsealer.close()


async def test_a_child_that_is_killed_is_unreachable_and_the_server_lives(unsealer, directory, uri):
    wrapped = await wrapping(unsealer, uri)
    server = unsealer.server_pid
    await no_child(unsealer)
    with hanging(directory):
        call = asyncio.create_task(opened(unsealer, uri, wrapped))
        os.kill(await one_child(unsealer), signal.SIGKILL)
        error = await failure(call)
    assert error.state is L1State.UNREACHABLE
    assert "without an answer" in error.detail
    assert await opened(unsealer, uri, wrapped) == BLOB
    assert unsealer.server_pid == server


async def test_no_child_holds_the_pipe_of_another(unsealer, directory, uri):
    wrapped = await wrapping(unsealer, uri)
    await no_child(unsealer)
    with hanging(directory):
        first = asyncio.create_task(opened(unsealer, uri, wrapped))
        older = await one_child(unsealer)
        (another,) = others(directory, 1)
        second = asyncio.create_task(opened(unsealer, another, wrapped))
        await until(lambda: len(children(unsealer.server_pid)) == 2)
        # The younger child was forked while the older call's pipe was open. If it had a copy,
        # the older call would not see its end.
        os.kill(older, signal.SIGKILL)
        assert "without an answer" in (await failure(first)).detail
        (younger,) = children(unsealer.server_pid) - {older}
        os.kill(younger, signal.SIGKILL)
        assert "without an answer" in (await failure(second)).detail


@pytest.mark.parametrize("operation", ["wrap", "unwrap", "probe"])
async def test_an_l1_that_hangs_ends_with_the_deadline(unsealer, directory, uri, operation):
    wrapped = await wrapping(unsealer, uri)
    digest = hashlib.sha256(BLOB).digest()
    blob, mechanism = wrapped.blob, wrapped.mechanism
    await no_child(unsealer)
    with hanging(directory):
        call = {
            "wrap": lambda: unsealer.wrap(uri, BLOB, CONTEXT, deadline_s=0.2),
            "unwrap": lambda: opened(unsealer, uri, wrapped, deadline_s=0.2),
            "probe": lambda: unsealer.probe(uri, blob, CONTEXT, mechanism, digest, deadline_s=0.2),
        }[operation]
        async with asyncio.timeout(PATIENCE_S):
            assert (await failure(call())).state is L1State.UNREACHABLE
        await until(lambda: not children(unsealer.server_pid))
    assert await opened(unsealer, uri, wrapped) == BLOB


async def test_a_child_that_ignores_its_timer_is_killed_by_the_server(unsealer, directory, uri):
    wrapped = await wrapping(unsealer, uri)
    await no_child(unsealer)
    with hanging(directory):
        call = asyncio.create_task(opened(unsealer, uri, wrapped, deadline_s=2.0))
        child = await one_child(unsealer)
        os.kill(child, signal.SIGSTOP)  # a stopped process takes no SIGALRM
        assert (await failure(call)).state is L1State.UNREACHABLE
        await until(lambda: gone(child))


async def test_a_cancelled_call_leaves_zeros_and_no_descriptor(unsealer, directory, uri):
    wrapped = await wrapping(unsealer, uri)
    before = open_descriptors()
    await no_child(unsealer)
    with hanging(directory):
        call = asyncio.create_task(opened(unsealer, uri, wrapped))
        child = await one_child(unsealer)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert open_descriptors() == before
        os.kill(child, signal.SIGKILL)


async def test_a_server_that_was_killed_is_started_again(unsealer, uri):
    wrapped = await wrapping(unsealer, uri)
    for _ in range(3):
        server = unsealer.server_pid
        os.kill(server, signal.SIGKILL)
        await until(lambda server=server: unsealer.server_pid != server)
        assert await opened(unsealer, uri, wrapped) == BLOB


async def test_a_call_in_flight_survives_the_server(unsealer, directory, uri):
    """A child that was forked needs the server no more: its own pipe is all it has to answer."""
    wrapped = await wrapping(unsealer, uri)
    await no_child(unsealer)
    with hanging(directory):
        call = asyncio.create_task(opened(unsealer, uri, wrapped))
        await one_child(unsealer)
        os.kill(unsealer.server_pid, signal.SIGKILL)
        await until(lambda: unsealer.server_pid is None)
        assert not call.done()
        writer = os.open(directory / "state", os.O_WRONLY)
        os.write(writer, b"enabled\n")
        os.close(writer)
        assert await call == BLOB


async def test_a_server_that_does_not_answer_is_replaced(directory, uri):
    unsealer = Unsealer({"KCM_DEVELOPMENT": "1"}, ping_deadline_s=0.2)
    await unsealer.start()
    try:
        wrapped = await wrapping(unsealer, uri)
        server = unsealer.server_pid
        os.kill(server, signal.SIGSTOP)
        error = await failure(opened(unsealer, uri, wrapped, deadline_s=0.1))
        assert error.state is L1State.UNREACHABLE
        await until(lambda: gone(server))
        assert await opened(unsealer, uri, wrapped) == BLOB
    finally:
        await unsealer.close()


async def test_a_hundred_unwraps_at_once_are_bounded_and_all_right(unsealer, directory, uri):
    plaintexts = [bytes([number]) * 72 for number in range(100)]
    wrapped = [await wrapping(unsealer, uri, plaintext) for plaintext in plaintexts]
    await until(lambda: not children(unsealer.server_pid))
    most = min(CALLS_IN_FLIGHT_MAX, CHILDREN_MAX)
    descriptors = open_descriptors()
    await no_child(unsealer)
    with hanging(directory):
        calls = [
            asyncio.create_task(opened(unsealer, other, each))
            for other, each in zip(others(directory, 100), wrapped, strict=True)
        ]
        await until(lambda: len(children(unsealer.server_pid)) >= most)
        for _ in range(20):
            assert len(children(unsealer.server_pid)) == most
            assert open_descriptors() <= descriptors + CALLS_IN_FLIGHT_MAX
            await asyncio.sleep(0)
    results = await asyncio.gather(*calls, return_exceptions=True)
    held = [result for result in results if isinstance(result, L1Error)]
    assert len(held) <= most, "only those that read the FIFO may have failed"
    assert {error.state for error in held} <= {L1State.UNREACHABLE}
    assert [
        result for result in results if not isinstance(result, L1Error)
    ] == [
        plaintext
        for plaintext, result in zip(plaintexts, results, strict=True)
        if not isinstance(result, L1Error)
    ]  # fmt: skip


async def test_waiting_for_a_slot_counts_towards_the_deadline(unsealer, directory, uri):
    wrapped = await wrapping(unsealer, uri)
    await no_child(unsealer)
    with hanging(directory):
        calls = [
            asyncio.create_task(opened(unsealer, other, wrapped))
            for other in others(directory, CALLS_IN_FLIGHT_MAX)
        ]
        await until(lambda: len(children(unsealer.server_pid)) == CHILDREN_MAX)
        error = await failure(opened(unsealer, uri, wrapped, deadline_s=0.05))
        assert (error.state, error.detail) == (
            L1State.UNREACHABLE,
            "no answer within the deadline",
        )
        assert len(children(unsealer.server_pid)) == CHILDREN_MAX
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def test_close_ends_the_children_and_refuses_what_comes_later(directory, uri):
    unsealer = Unsealer({"KCM_DEVELOPMENT": "1"})
    await unsealer.start()
    wrapped = await wrapping(unsealer, uri)
    await no_child(unsealer)
    with hanging(directory):
        call = asyncio.create_task(opened(unsealer, uri, wrapped))
        child = await one_child(unsealer)
        await unsealer.close()
        assert gone(child)
        assert (await failure(call)).state is L1State.UNREACHABLE
    error = await failure(opened(unsealer, uri, wrapped))
    assert "closed" in error.detail
    await unsealer.close()  # again is harmless


async def test_it_starts_by_itself_at_the_first_call(uri):
    unsealer = Unsealer({"KCM_DEVELOPMENT": "1"})
    try:
        wrapped = await wrapping(unsealer, uri)
        assert await opened(unsealer, uri, wrapped) == BLOB
    finally:
        await unsealer.close()


async def test_a_server_that_cannot_be_started_is_unreachable():
    server = ForkServer({}, Kind("softkey"), python="/nonexistent/python")
    error = await failure(server.send([b"request"], 2))
    assert (error.state, error.cls) == (L1State.UNREACHABLE, "FileNotFoundError")
    assert server.pid is None
    await server.close()


async def test_the_state_is_read_anew_for_every_call(unsealer, directory, uri):
    wrapped = await wrapping(unsealer, uri)
    flip(directory, L1State.DISABLED)
    assert (await failure(opened(unsealer, uri, wrapped))).state is L1State.DISABLED
    flip(directory, L1State.ENABLED)
    assert await opened(unsealer, uri, wrapped) == BLOB
