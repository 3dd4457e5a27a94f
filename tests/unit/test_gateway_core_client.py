"""The sealed channel from the Gateway's side: what a broker may say, and how little it changes."""

import asyncio

import pytest
from kcm_keymem.random import SystemKeyRandomness
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import RETRYABLE, Code, KcmError
from kcm_schemas.data import decode_reply
from kcm_schemas.session import UNSEALED, SealedRefusal, SealedReply
from kcm_schemas.vault import CoreRequest
from kcm_sessions.peer_sessions import AVOID_S, END_S, RENEW_S, REOPEN_S

from tests.audit_rig import until
from tests.fakes.refusals import failure
from tests.unit.core_rig import KEY, World, is_request
from tests.unit.refusals import refusal, refused


class Broker:
    """Between Gateway and Core. ``lies`` makes of a request and its answer what it likes.

    ``begins`` does so with what begins a session, which ``begun`` lists.
    """

    def __init__(self, core):
        self.core = core
        self.lies = lambda body, answer: answer
        self.begins = lambda verb, answer: answer
        self.bodies = []
        self.begun = []

    async def __call__(self, subject, body, timeout_s):
        if not is_request(subject):
            verb, core = subject.split(".")[-1], subject.split(".")[-2]
            self.begun.append((core, verb))
            return self.begins(verb, await self.core.answer(subject, body))
        self.bodies.append(body)
        return self.lies(body, await self.core.answer(subject, body))

    @property
    def sessions(self):
        return [decode(CoreRequest, body).session_id for body in self.bodies]


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


async def test_one_session_serves_until_it_is_replaced_in_the_background(core, broker, client):
    for _ in range(3):
        await wrap(client)
    first = set(broker.sessions)
    assert len(first) == 1
    core.world.clock.now += RENEW_S
    await wrap(client)
    assert set(broker.sessions) == first, "no request waits for the next session"
    await until(lambda: len(core.sessions) == 2)
    await wrap(client)
    assert len(set(broker.sessions)) == 2


async def test_a_session_that_is_almost_over_takes_no_request(core, broker, client):
    await wrap(client)
    core.world.clock.now += END_S
    await wrap(client)
    assert len(set(broker.sessions)) == 2


async def test_counters_rise_by_one_in_each_session(core, broker, client):
    await asyncio.gather(*(wrap(client) for _ in range(10)))
    counters = [decode(CoreRequest, body).counter for body in broker.bodies]
    assert counters == list(range(1, 11))


async def test_an_unknown_session_is_made_anew_once(core, broker, client):
    await wrap(client)
    answers = iter([failure(Code.UNKNOWN_SESSION)])
    broker.lies = lambda body, answer: next(answers, answer)
    await wrap(client)
    assert len(set(broker.sessions)) == 2
    core.world.clock.now += REOPEN_S
    broker.lies = lambda body, answer: failure(Code.UNKNOWN_SESSION)
    assert await refused(wrap(client)) in RETRYABLE
    assert len(broker.sessions) == 5
    assert len(set(broker.sessions)) == 3


async def test_a_forger_makes_no_flood_of_tickets(core, broker, client):
    """Otherwise the Core, which remembers each, would take no more of this Gateway."""
    await wrap(client)
    broker.lies = lambda body, answer: failure(Code.UNKNOWN_SESSION)
    for _ in range(100):
        await refused(wrap(client))
    assert len(set(broker.sessions)) <= 3
    broker.lies = lambda body, answer: answer
    await wrap(client)


async def test_requests_that_lost_one_session_together_make_one_new_one(core, broker, client):
    await wrap(client)
    lost = set(broker.sessions)

    def forget(body, answer):
        session = decode(CoreRequest, body).session_id
        return failure(Code.UNKNOWN_SESSION) if session in lost else answer

    broker.lies = forget
    await asyncio.gather(*(wrap(client) for _ in range(10)))
    assert len(set(broker.sessions)) == 2


def flipped(body, answer):
    reply = decode(SealedReply, answer)
    sealed = bytearray(reply.sealed)
    sealed[40] ^= 1
    return encode(reply.model_copy(update={"sealed": bytes(sealed)}))


def as_refusal(body, answer):
    return encode(SealedRefusal(v=1, refused=decode(SealedReply, answer).sealed))


def shortened(body, answer):
    reply = decode(SealedReply, answer)
    return encode(reply.model_copy(update={"sealed": reply.sealed[:-1]}))


LIES = [flipped, as_refusal, shortened]


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
    assert await refused(wrap(client)) in UNSEALED


async def test_a_forged_refusal_writes_nothing_to_a_terminal(broker, client):
    broker.lies = lambda body, _: failure(Code.BUSY, "\x1b[2J\nroot key deleted\u202e")
    error = await refusal(wrap(client))
    assert error.code in UNSEALED
    assert str(error).isprintable()
    assert "deleted" not in str(error)


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
async def test_a_refusal_without_a_seal_only_sends_elsewhere(broker, client, code):
    """A forging broker: whatever it says, nobody believes that a key is destroyed or killed."""
    broker.lies = lambda body, _: failure(code, "so says the broker")
    error = await refusal(wrap(client))
    assert error.code in UNSEALED
    assert error.code in RETRYABLE | {Code.MALFORMED}


@pytest.mark.parametrize("verb", ["key", "open"])
@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
async def test_nor_does_one_while_a_session_begins(broker, client, verb, code):
    broker.begins = lambda asked, answer: failure(code) if asked == verb else answer
    error = await refusal(wrap(client))
    assert error.code in UNSEALED
    assert not broker.bodies


async def test_a_refusal_that_the_core_sealed_counts(core, broker, client):
    await wrap(client)
    core.kill()
    error = await refusal(wrap(client))
    assert error.code is Code.TENANT_KILLED
    assert error.detail
    assert len(broker.bodies) == 2, "it is asked once"


async def test_a_refusal_of_another_request_does_not_count(core, broker, client):
    await wrap(client)
    core.kill()
    kept = []
    broker.lies = lambda body, answer: kept.append(answer) or answer
    await refusal(wrap(client))
    core.lift()
    broker.lies = lambda body, answer: kept[0]
    assert await refused(wrap(client)) is Code.UNAVAILABLE


async def test_the_key_of_another_instance_opens_nothing(core, broker, client):
    stolen = core.world.core("core-eu-2").session_keys.statement()
    broker.begins = lambda verb, answer: stolen if verb == "key" else answer
    error = await refusal(wrap(client))
    assert error.code is Code.UNAVAILABLE
    assert all(verb == "key" for _, verb in broker.begun)
    assert "core-eu-2" in error.detail


@pytest.mark.parametrize("step_s", [-3700.0, 3700.0, 7300.0])
async def test_a_key_of_another_time_is_refused_and_the_text_names_the_clock(core, broker, step_s):
    key = core.session_keys.statement()
    core.world.clock.now += step_s
    broker.begins = lambda verb, answer: key if verb == "key" else answer
    error = await refusal(wrap(core.client(ask=broker)))
    assert error.code is Code.UNAVAILABLE
    assert "clock" in error.detail


async def test_a_core_that_does_not_have_the_key_opens_no_session(core, broker, client):
    def other(verb, answer):
        return encode(SealedReply(v=1, sealed=bytes(40))) if verb == "open" else answer

    broker.begins = other
    error = await refusal(wrap(client))
    assert error.code is Code.UNAVAILABLE
    assert not broker.bodies


async def test_the_other_core_is_asked_when_one_is_away_or_refuses(core, broker):
    other = core.world.core("core-eu-2")
    other.learn()
    away, seen = set(), []

    async def ask(subject, body, timeout_s):
        name = subject.split(".")[4]
        if name in away:
            raise KcmError(Code.UNAVAILABLE, "no instance serves this at the moment")
        if is_request(subject):
            seen.append(name)
        return await {"core-eu": core, "core-eu-2": other}[name].answer(subject, body)

    client = core.client(ask=ask)
    for me in (core, other):
        me.incarnations.take(core.caller_lease, 1, core.world.clock.elapsed())
    await wrap(client)
    first, second = seen[0], ({"core-eu", "core-eu-2"} - {seen[0]}).pop()
    await until(lambda: len({"core-eu": core, "core-eu-2": other}[second].sessions))
    away.add(first)
    for _ in range(3):
        await wrap(client)
    assert seen[1:] == [second] * 3
    away.clear()
    {"core-eu": core, "core-eu-2": other}[second].room.has_room = False
    core.world.clock.now += AVOID_S
    for _ in range(4):
        await wrap(client)
    assert set(seen[4:]) >= {first}


def test_a_failure_that_says_ok_is_malformed():
    with pytest.raises(KcmError) as info:
        decode_reply(SealedReply, failure(Code.OK))
    assert info.value.code is Code.MALFORMED


async def test_a_closed_client_opens_no_session_again(broker, client):
    await wrap(client)
    client.close()
    with pytest.raises(KcmError) as info:
        await wrap(client)
    assert info.value.code is Code.UNAVAILABLE
    assert len(set(broker.sessions)) == 1
