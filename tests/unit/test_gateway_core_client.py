"""The sealed channel from the Gateway's side: what a broker may say, and how little it changes."""

import asyncio

import pytest
from kcm_keymem.random import SystemKeyRandomness
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import decode_reply
from kcm_schemas.vault import CoreReply, CoreRequest
from kcm_sealing.session import LIFETIME_MAX_MS

from tests.fakes.client import failure
from tests.unit.core_rig import KEY, World
from tests.unit.refusals import refusal, refused


class Broker:
    """Between Gateway and Core; ``lies`` makes of a request and its answer what it likes."""

    def __init__(self, core):
        self.core = core
        self.lies = lambda body, answer: answer
        self.bodies = []

    async def __call__(self, subject, body, timeout_s):
        self.bodies.append(body)
        return self.lies(body, await self.core.answer(subject, body))

    @property
    def sessions(self):
        return [decode(CoreRequest, body).ticket.session_id for body in self.bodies]


@pytest.fixture
async def core(tmp_path):
    return await World(tmp_path).core().made()


@pytest.fixture
def broker(core):
    return Broker(core)


@pytest.fixture
def client(core, broker):
    return core.client(ask=broker)


def fresh(count=2):
    keys = memoryview(bytearray(KEY * count))
    SystemKeyRandomness().fill(keys)
    return keys


async def wrap(client):
    return await client.wrap("acme", "crm", "record", fresh())


async def test_one_session_serves_until_half_its_life_is_over(core, broker, client):
    for _ in range(3):
        await wrap(client)
    assert len(set(broker.sessions)) == 1
    core.world.clock.now += LIFETIME_MAX_MS / 2000
    await wrap(client)
    core.world.clock.now -= 3600  # a wall clock that was set back
    await wrap(client)
    assert len(set(broker.sessions)) == 3


async def test_an_unknown_session_is_made_anew_once(core, broker, client):
    await wrap(client)
    answers = iter([failure(Code.UNKNOWN_SESSION)])
    broker.lies = lambda body, answer: next(answers, answer)
    await wrap(client)
    assert len(set(broker.sessions)) == 2
    broker.lies = lambda body, answer: failure(Code.UNKNOWN_SESSION)
    assert await refused(wrap(client)) is Code.UNKNOWN_SESSION
    assert len(broker.sessions) == 5


async def test_requests_that_lost_one_session_together_make_one_new_one(core, broker, client):
    await wrap(client)
    lost = set(broker.sessions)

    def forget(body, answer):
        session = decode(CoreRequest, body).ticket.session_id
        return failure(Code.UNKNOWN_SESSION) if session in lost else answer

    broker.lies = forget
    await asyncio.gather(*(wrap(client) for _ in range(10)))
    assert len(set(broker.sessions)) == 2


def flipped(body, answer):
    reply = decode(CoreReply, answer)
    sealed = bytearray(reply.sealed)
    sealed[40] ^= 1
    return encode(reply.model_copy(update={"sealed": bytes(sealed)}))


def renamed(body, answer):
    return encode(decode(CoreReply, answer).model_copy(update={"callee": "core-eu-2"}))


def shortened(body, answer):
    reply = decode(CoreReply, answer)
    return encode(reply.model_copy(update={"sealed": reply.sealed[:-1]}))


LIES = [flipped, renamed, shortened]


@pytest.mark.parametrize("lie", LIES)
async def test_an_answer_that_is_not_the_cores_is_not_used(broker, client, lie):
    broker.lies = lie
    assert await refused(wrap(client)) is Code.UNAVAILABLE


async def test_an_answer_to_another_request_is_not_used(broker, client):
    answers = []

    def swapped(body, answer):
        answers.append(answer)
        return answers[0]

    broker.lies = swapped
    await wrap(client)
    assert await refused(wrap(client)) is Code.UNAVAILABLE


@pytest.mark.parametrize("answer", [b"", b"\xc1", b"\x80", b"x" * 100])
async def test_rubbish_is_an_error_with_a_code(broker, client, answer):
    broker.lies = lambda body, _: answer
    assert await refused(wrap(client)) is Code.MALFORMED


async def test_a_forged_refusal_writes_nothing_to_a_terminal(broker, client):
    broker.lies = lambda body, _: failure(Code.BUSY, "\x1b[2J\nroot key deleted\u202e")
    error = await refusal(wrap(client))
    assert error.code is Code.BUSY
    assert str(error).isprintable()
    assert "deleted" not in str(error)


def test_a_failure_that_says_ok_is_malformed():
    with pytest.raises(KcmError) as info:
        decode_reply(CoreReply, failure(Code.OK))
    assert info.value.code is Code.MALFORMED


async def test_a_closed_client_opens_no_session_again(broker, client):
    await wrap(client)
    client.close()
    with pytest.raises(KcmError) as info:
        await wrap(client)
    assert info.value.code is Code.UNAVAILABLE
    assert len(set(broker.sessions)) == 1
