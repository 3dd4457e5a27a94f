"""Sessions with two Cores: rosters that change meanwhile, Cores that hang or offer a bad key."""

from __future__ import annotations

import asyncio
import gc

import pytest
from kcm_killswitch.model.hold_set import HoldState
from kcm_schemas import limits
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import RETRYABLE, Code, KcmError
from kcm_schemas.data import Failure
from kcm_schemas.names import key_target
from kcm_schemas.session import SealedRefusal, SealedReply
from kcm_schemas.signed import Kind
from kcm_schemas.vault import CoreRequest
from kcm_sessions.peer_sessions import END_S

from tests.audit_rig import until
from tests.fakes.refusals import failure
from tests.unit.core_rig import VERIFIER
from tests.unit.refusals import refusal, refused
from tests.unit.roster_changes import signed_roster, without
from tests.unit.trust_rig import hold
from tests.unit.two_cores_rig import two_cores, watched_sessions, wrap
from tests.vectors.families.messages import identity


@pytest.fixture
async def region(tmp_path):
    return await two_cores(tmp_path)


@pytest.fixture
def client(region):
    return region.client()


# The roster


async def test_a_core_that_leaves_the_roster_while_a_session_begins_gets_none(region, client):
    gone, held, go_on = [], asyncio.Event(), asyncio.Event()

    async def hold(name, what, _):
        if what == "open" and not gone:
            gone.append(name)
            held.set()
            await go_on.wait()

    region.before = hold
    asking = asyncio.create_task(wrap(client))
    await held.wait()
    region.me.rosters.take(signed_roster(without(gone[0])))
    go_on.set()
    await asking
    for _ in range(5):
        await wrap(client)
    assert gone[0] not in region.works()


async def test_nor_is_its_reply_used_that_is_under_way(region, client):
    await wrap(client)
    gone = []

    async def leave(name, what, _):
        if what == "work" and not gone:
            gone.append(name)
            region.me.rosters.take(signed_roster(without(name)))

    region.before = leave
    await wrap(client)
    assert region.works()[-1] != gone[0]


# Cores that hang


@pytest.mark.parametrize("step", ["key", "open"])
async def test_a_core_that_hangs_while_a_session_begins_is_not_waited_for(region, client, step):
    hanging = []

    async def hang(name, what, timeout_s):
        if what == step and (not hanging or name in hanging):
            hanging.append(name)
            region.world.clock.now += timeout_s
            raise KcmError(Code.DEADLINE_EXCEEDED)

    region.before = hang
    for _ in range(5):
        await wrap(client)
        region.world.clock.now += END_S  # every session is over: it begins again
    assert hanging
    assert set(region.works()) == {"core-eu", "core-eu-2"} - {hanging[0]}


async def test_a_request_that_hangs_does_not_end_the_session_of_others(region, client):
    """A customer's root key hangs, and the Core answers everybody else."""
    await wrap(client)
    session = region.asked[:]
    waiting, go_on = asyncio.Event(), asyncio.Event()

    async def hang(_name, what, _timeout_s):
        if what == "work" and not waiting.is_set():
            waiting.set()
            await go_on.wait()
            raise KcmError(Code.DEADLINE_EXCEEDED)

    region.before = hang
    slow = asyncio.create_task(wrap(client))
    await waiting.wait()
    region.world.clock.now += 1.0
    for _ in range(4):
        await wrap(client)
    go_on.set()
    assert await refused(slow) is Code.DEADLINE_EXCEEDED
    begun = [one for one in region.asked[len(session) :] if one[1] == "key"]
    await wrap(client)
    assert [one for one in region.asked[len(session) :] if one[1] == "key"] == begun


# What a Core may offer


@pytest.mark.parametrize("public", [b"\xff" * limits.HPKE_PUBLIC_SIZE, None], ids=["none", "zeros"])
async def test_a_key_that_is_none_makes_the_gateway_ask_the_other_core(region, client, public):
    bad = []

    def offer(name, what, answer):
        if what == "key" and (not bad or name in bad):
            bad.append(name)
            key = VERIFIER.session_key(answer)
            other = public or key.public[:-32] + bytes(32)
            changed = key.model_copy(update={"public": other})
            return encode(identity(name).sign(Kind.SESSION_KEY, changed))
        return answer

    region.after = offer
    await wrap(client)
    assert region.works() == [({"core-eu", "core-eu-2"} - {bad[0]}).pop()]


@pytest.mark.parametrize("size", [0, 39, 50, 1000])
async def test_a_reply_of_another_length_makes_the_gateway_ask_the_other_core(region, client, size):
    lied = []

    def shorter(name, what, answer):
        if what == "work" and not lied:
            lied.append(name)
            return encode(SealedReply(v=1, sealed=bytes(size)))
        return answer

    region.after = shorter
    await wrap(client)
    assert len(set(region.works())) == 2


@pytest.mark.parametrize("said", [Failure(v=1, error=Code.OK, detail=""), None])
async def test_a_core_that_seals_a_refusal_that_is_none_does_not_succeed(region, client, said):
    """A hostile Core has the session, and may seal anything."""

    def lie(name, what, answer):
        core = region.cores[name]
        if what != "work":
            return answer
        request = decode(CoreRequest, region.body)
        session, _ = core.sessions.session("gw-eu", request.session_id)
        plain = memoryview(encode(said) if said else b"no failure")
        clear = request.clear("eu", "wrap", "acme", "crm")
        digest = session.keys.request_digest(request.counter, clear)
        return encode(
            SealedRefusal(v=1, refused=session.keys.seal_reply(digest, plain, bytes(24), "refused"))
        )

    region.after = lie
    assert await refused(wrap(client)) is Code.UNAVAILABLE


async def test_cores_that_are_equally_busy_take_turns(region, client):
    await wrap(client)
    await until(lambda: all(len(core.sessions) for core in region.cores.values()))
    del region.asked[:]
    for _ in range(10):
        await wrap(client)
    assert sorted(map(region.works().count, region.cores)) == [5, 5]


async def test_a_core_that_refuses_is_left_alone_for_a_moment(region, client):
    await wrap(client)
    await until(lambda: all(len(core.sessions) for core in region.cores.values()))
    region.cores["core-eu"].room.has_room = False
    del region.asked[:]
    for _ in range(20):
        await wrap(client)
    assert region.works().count("core-eu") <= 1
    assert region.works().count("core-eu-2") == 20


# Keys of sessions


async def test_a_session_that_is_given_up_is_wiped_at_once(region, monkeypatch):
    """Without the garbage collector: it runs seldom."""
    made = watched_sessions(monkeypatch)
    client = region.client()
    gc.disable()
    try:
        await wrap(client)
        await until(lambda: all(len(core.sessions) for core in region.cores.values()))
        region.after = lambda _, what, answer: (
            failure(Code.UNKNOWN_SESSION) if what == "work" else answer
        )
        await refusal(wrap(client))
        assert [one.closed for one in made[:2]] == [True, True]
        region.after = None
        kept = list(made)
        region.world.clock.now += END_S
        await wrap(client)
        assert all(one.closed for one in kept)
    finally:
        gc.enable()


async def test_closing_while_a_session_begins_or_a_request_waits_is_an_error_with_a_code(region):
    for step in ("key", "open", "work"):
        client, held, go_on = region.client(), asyncio.Event(), asyncio.Event()

        async def hold(_name, what, _timeout_s, step=step, held=held, go_on=go_on):
            if what == step:
                held.set()
                await go_on.wait()

        region.before = hold
        asking = asyncio.create_task(wrap(client))
        await held.wait()
        client.close()
        go_on.set()
        assert await refused(asking) in RETRYABLE


async def test_a_fault_of_the_core_is_recorded_in_the_name_of_its_caller(region, client):
    await wrap(client)
    for core in region.cores.values():
        core.events.clear()
        core.vault.wrap = _broken
    with pytest.raises(IndexError):  # the request server answers it with a code
        await wrap(client)
    told = [f["code"] for c in region.cores.values() for k, f in c.events if k == "keys.wrap"]
    assert told == [Code.INTERNAL]


def _broken(*_):
    raise IndexError


# Holds on the key of a Core


def kill_key(region, name):
    target = key_target(name, identity(name).public)
    region.revocations.learn(HoldState(hold(scope="instance", target=target), b"raw"))


async def test_a_core_whose_key_is_held_is_asked_no_more(region, client):
    for _ in range(4):
        await wrap(client)
    used = region.works()[-1]
    kill_key(region, used)
    region.asked.clear()
    for _ in range(8):
        await wrap(client)
    assert used not in {name for name, _ in region.asked}


async def test_a_reply_of_a_core_that_was_held_meanwhile_does_not_count(region, client):
    await wrap(client)
    held = []

    def during(name, what, answer):
        if what == "work" and not held:
            held.append(name)
            kill_key(region, name)
        return answer

    region.after = during
    await wrap(client)
    assert len(region.works()) >= 3
    assert region.works()[-1] != held[0]
