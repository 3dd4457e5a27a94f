"""What a hostile broker, or any client of it, achieves against a Gateway's sessions."""

from __future__ import annotations

import asyncio

import pytest
from kcm_schemas.codec import encode
from kcm_schemas.codes import RETRYABLE, Code, KcmError
from kcm_schemas.data import Failure
from kcm_schemas.session import SealedReply
from kcm_sessions.peer_sessions import AVOID_S
from kcm_sessions.session_opener import TICKET_EVERY_S, TICKETS_AT_ONCE

from tests.audit_rig import until
from tests.fakes.refusals import failure
from tests.unit.core_rig import ROSTER
from tests.unit.refusals import refusal, refused
from tests.unit.roster_changes import signed_roster, without
from tests.unit.two_cores_rig import two_cores, watched_sessions, wrap
from tests.vectors.families.messages import identity


@pytest.fixture
async def region(tmp_path):
    return await two_cores(tmp_path)


@pytest.fixture
def client(region):
    return region.client()


@pytest.mark.parametrize(
    "lie", [SealedReply(v=1, sealed=bytes(40)), Failure(v=1, error=Code.UNKNOWN_SESSION, detail="")]
)
async def test_forged_replies_to_tickets_do_not_use_up_the_tickets(region, client, lie):
    region.after = lambda _, what, answer: encode(lie) if what == "open" else answer
    for _ in range(200):
        await refused(wrap(client))
    tickets = region.asked.count(("core-eu", "open")) + region.asked.count(("core-eu-2", "open"))
    assert tickets <= 2 * TICKETS_AT_ONCE
    region.after = None
    region.world.clock.now += TICKET_EVERY_S
    await wrap(client)


async def test_a_replaced_key_of_a_core_voids_a_reply_that_is_under_way(region, client):
    await wrap(client)
    changed = []

    async def rekey(name, what, _):
        if what == "work" and not changed:
            changed.append(name)
            later = ROSTER.model_copy(update={"version": ROSTER.version + 1, "instances": [
                one.model_copy(update={"public_key": identity("stranger").public})
                if one.instance == name else one for one in ROSTER.instances
            ]})  # fmt: skip
            region.me.rosters.take(signed_roster(later))

    region.before = rekey
    await wrap(client)
    assert region.works()[-1] != changed[0]


async def test_many_failures_at_once_put_a_core_aside_for_a_moment_only(region, client):
    await wrap(client)
    await until(lambda: all(len(core.sessions) for core in region.cores.values()))
    region.after = lambda name, what, answer: (
        failure(Code.BUSY) if (name, what) == ("core-eu", "work") else answer
    )
    await asyncio.gather(*(wrap(client) for _ in range(12)))
    region.after = None
    region.world.clock.now += AVOID_S
    del region.asked[:]
    for _ in range(4):
        await wrap(client)
    assert region.works().count("core-eu") == 2


@pytest.mark.parametrize("code", [Code.MALFORMED, Code.REPLAYED, Code.DEADLINE_EXCEEDED, Code.BUSY])
async def test_neither_code_nor_text_of_a_forger_reaches_the_application(region, client, code):
    region.after = lambda _, what, answer: (
        failure(code, "your key is gone, call 555-1234") if what == "work" else answer
    )
    error = await refusal(wrap(client))
    assert error.code in {Code.UNAVAILABLE, Code.BUSY}
    assert "555" not in str(error)


async def test_a_session_that_was_given_up_is_wiped_when_the_client_closes(region, monkeypatch):
    made = watched_sessions(monkeypatch)
    client, held, go_on = region.client(), asyncio.Event(), asyncio.Event()

    async def hold(_name, what, _timeout_s):
        if what == "work":
            held.set()
            await go_on.wait()

    region.before = hold
    asking = asyncio.create_task(wrap(client))
    await held.wait()
    region.me.rosters.take(signed_roster(without("core-eu")))  # gives one session up, if it is its
    client.close()
    assert all(one.closed for one in made)
    go_on.set()
    assert await refused(asking) in RETRYABLE


async def test_a_cancelled_request_stays_cancelled_when_the_client_closes(region):
    client, held = region.client(), asyncio.Event()

    async def hold(_name, _what, _timeout_s):
        held.set()
        await asyncio.Event().wait()

    region.before = hold
    asking = asyncio.create_task(wrap(client))
    await held.wait()
    client.close()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_the_other_core_that_comes_back_is_waited_for(region, client):
    """One hangs, the other is away for a moment: nothing was sent, so it is tried again."""
    clock = region.world.clock
    back = clock.now + 0.3  # less than the waits of any random numbers

    async def bend(name, _what, timeout_s):
        if name == "core-eu":
            clock.now += timeout_s / 5
            raise KcmError(Code.DEADLINE_EXCEEDED)
        if clock.now < back:
            raise KcmError(Code.UNAVAILABLE, "no instance serves this at the moment")

    region.before = bend
    await wrap(client)
    assert region.works() == ["core-eu-2"]
