"""A task that is cancelled while its reply arrives ends."""

import asyncio
from contextlib import suppress

import pytest
from kcm_runtime.cancellation import cancellable
from kcm_runtime.nats.client import ReadingClient
from kcm_runtime.nats.connection import Connection

from tests.fakes.broker import FirstWords


async def test_a_cancellation_and_a_result_in_one_turn_are_a_cancellation():
    future = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(cancellable(asyncio.wait_for(future, 60)))
    await asyncio.sleep(0)
    future.set_result("reply")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_and_an_error_in_one_turn_are_a_cancellation():
    async def refused(future):
        await asyncio.wait_for(future, 60)
        raise ConnectionError

    future = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(cancellable(refused(future)))
    await asyncio.sleep(0)
    future.set_result("nobody listens")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_task_that_was_cancelled_before_may_end_its_work():
    async def work():
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(await cancellable(asyncio.sleep(0, "done")))

    ended = []
    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert ended == ["done"]


async def test_a_result_and_an_error_pass():
    async def fails():
        raise ValueError

    assert await cancellable(asyncio.sleep(0, 7)) == 7
    with pytest.raises(ValueError):
        await cancellable(fails())


class Cancelling(ReadingClient):
    """Cancels a task in the turn in which its reply or the answer to its flush arrives."""

    task = None

    async def _process_msg(self, *arguments):
        await super()._process_msg(*arguments)
        if self.task is not None:
            self.task.cancel()

    async def _process_pong(self):
        await super()._process_pong()
        if self.task is not None:
            self.task.cancel()


@pytest.mark.parametrize("flush", [False, True])
async def test_neither_a_request_nor_a_flush_loses_its_cancellation(tmp_path, monkeypatch, flush):
    made = []

    def client():
        made.append(Cancelling())
        return made[-1]

    monkeypatch.setattr("kcm_runtime.nats.connection.ReadingClient", client)
    broker = FirstWords("2.14.0")
    await broker.start()
    connection = Connection(broker.address(tmp_path), "app")
    await connection.start()
    try:
        assert await connection.request("kcm.echo", b"hello", 60) == b"hello"
        work = connection.flush(60) if flush else connection.request("kcm.echo", b"hello", 60)
        made[0].task = task = asyncio.create_task(work)
        with pytest.raises(asyncio.CancelledError):
            await task
    finally:
        made[0].task = None
        await connection.close()
        await broker.close()


async def ignore(_):
    pass


@pytest.mark.parametrize("says", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"INFO {\r\n"])
async def test_connecting_does_not_lose_its_cancellation(says):
    """The library tries again without end, and drops a cancellation in some turns of the loop."""

    async def serve(_, writer):
        writer.write(says)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for turns in range(1, 60):
        client = ReadingClient()
        connecting = asyncio.create_task(
            client.connect(
                [f"nats://127.0.0.1:{port}"],
                ignore,
                reconnect_time_wait=0.001,
                max_reconnect_attempts=-1,
            )
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        connecting.cancel()
        await asyncio.wait({connecting}, timeout=30)
        assert connecting.cancelled(), turns
        await client.close()
    server.close()
    await server.wait_closed()


async def test_nothing_is_left_of_a_closing_that_was_cancelled():
    broker = FirstWords("2.14.0")
    await broker.start()
    before = asyncio.all_tasks()
    for turns in range(12):
        client = ReadingClient()
        await client.connect([f"nats://127.0.0.1:{broker.port}"])
        await client.subscribe("kcm.>", cb=ignore)
        closing = asyncio.create_task(client.close())
        for _ in range(turns):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait({closing})
        await client.close()
        async with asyncio.timeout(30):
            while broker.connections or asyncio.all_tasks() - before:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.001)
    await broker.close()
