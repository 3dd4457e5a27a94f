"""A connection that is used only now and then leaves a node that serves nothing."""

import asyncio
import json

import pytest
from kcm_runtime.nats.jetstream_errors import NO_STREAM
from kcm_runtime.nats.provision import KEYS
from kcm_runtime.nats.stream_watch import StreamWatch
from kcm_schemas.codes import Code, KcmError

from tests.fakes.bus import Clock

EVERY_S, PATIENCE_S = 0.001, 5.0
LOST = KcmError(Code.UNAVAILABLE, "no answer")
FOUND = json.dumps({"config": {"name": KEYS}}).encode()
MISSING = json.dumps({"error": {"err_code": NO_STREAM}}).encode()
LEADERLESS = json.dumps({"error": {"err_code": 10008}}).encode()


class Node:
    """A connection whose node gives one answer to all questions; a second passes for each."""

    def __init__(self, clock, answer, nodes=3):
        self.clock, self.answer, self.nodes = clock, answer, nodes
        self.connected, self.asked, self.moved = True, [], []

    async def request(self, subject, _body, _timeout_s):
        self.asked.append(subject)
        self.clock.now += 1.0
        if isinstance(self.answer, KcmError):
            raise self.answer
        return self.answer

    async def move(self):
        self.moved.append(len(self.asked))


@pytest.fixture
def clock():
    return Clock()


async def watched(clock, node, times):
    watch = StreamWatch(node, KEYS, clock, every_s=EVERY_S, patience_s=PATIENCE_S)
    watch.start()
    async with asyncio.timeout(10):
        while len(node.asked) < times:  # noqa: ASYNC110 - the watch has no event for it
            await asyncio.sleep(EVERY_S)
    watch.close()


@pytest.mark.parametrize("answer", [LOST, LEADERLESS])
async def test_a_node_without_the_streams_leader_is_left_after_a_while(clock, answer):
    node = Node(clock, answer)
    await watched(clock, node, 11)
    assert set(node.asked) == {f"$JS.API.STREAM.INFO.{KEYS}"}
    assert node.moved[:2] == [5, 10]


@pytest.mark.parametrize("answer", [FOUND, MISSING])
async def test_a_node_that_answers_is_not_left(clock, answer):
    node = Node(clock, answer)
    await watched(clock, node, 20)
    assert not node.moved


async def test_an_outage_is_for_the_connection_to_end(clock):
    node = Node(clock, LOST)
    node.connected = False
    watch = StreamWatch(node, KEYS, clock, every_s=EVERY_S, patience_s=PATIENCE_S)
    watch.start()
    for _ in range(5):
        clock.now += PATIENCE_S
        await asyncio.sleep(EVERY_S)
    node.connected = True
    async with asyncio.timeout(10):
        while not node.asked:  # noqa: ASYNC110 - the watch has no event for it
            await asyncio.sleep(EVERY_S)
    assert not node.moved
    watch.close()


async def test_with_a_single_node_nothing_is_asked(clock):
    node = Node(clock, LOST, nodes=1)
    watch = StreamWatch(node, KEYS, clock, every_s=EVERY_S, patience_s=PATIENCE_S)
    watch.start()
    await asyncio.sleep(10 * EVERY_S)
    watch.close()
    assert not node.asked
