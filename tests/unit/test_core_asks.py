"""What a Core unwraps for a Gateway: only keys for which an application that may, asks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from kcm._internal.core_asks import TICKET_S, TICKETS, AsksEnded
from kcm_gateway.keys.asks import AppAsks
from kcm_killswitch.model.hold_set import HoldState
from kcm_schemas import limits
from kcm_schemas.app import AppGrant
from kcm_schemas.asks import TAG_SIZE, Ask
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data_subjects import DataSubject
from kcm_schemas.names import key_target
from kcm_schemas.registry import Service
from kcm_sessions.peer_sessions import REOPEN_S

from tests.unit.app_rig import app, following
from tests.unit.ask_rig import KEY, Application, each, service_gateways, unwrap
from tests.unit.core_rig import World
from tests.unit.refusals import refusal
from tests.unit.test_core_wrapping import fresh
from tests.unit.trust_rig import hold
from tests.vectors.families.messages import identity

NO_KEYS = bytes(3 * KEY)


@pytest.fixture
async def core(world: World):
    core = await world.core().made()
    service_gateways(core)
    core.registry.put(app("shop", "acme/crm"))
    return core


@pytest.fixture
def shop(core):
    return Application(core)


@pytest.fixture
def gateway(core):
    return core.client()


@pytest.fixture
async def keys(gateway):
    made = fresh(3)
    _, blobs = await gateway.wrap("acme", "crm", "record", made)
    return made.tobytes(), blobs


def unwraps(core):
    """The events of unwraps: what asked, the code, how many keys, and how many failed."""
    return [
        (fields["target"], fields["code"], fields["count"], fields["failed"])
        for kind, fields in core.events
        if kind == "keys.unwrap"
    ]


async def test_a_gateway_gets_the_keys_for_which_an_application_asks(core, shop, gateway, keys):
    plain, blobs = keys
    part = await shop.part(blobs)
    for _ in range(2):  # it may repeat the ask: it has these keys already
        done = await unwrap(gateway, blobs, part)
        assert (done.bad, done.keys) == ({}, plain)
    assert unwraps(core) == [("app shop", Code.OK, 3, 0)] * 2
    assert {fields["actor"] for kind, fields in core.events if kind == "keys.unwrap"} == {"gw-eu"}


async def test_a_gateway_alone_gets_nothing(core, gateway, keys):
    done = await unwrap(gateway, keys[1])
    assert (set(done.bad.values()), done.keys) == ({Code.FORBIDDEN}, NO_KEYS)
    assert unwraps(core) == [("", Code.FORBIDDEN, 3, 3)]


def order(one, two, three):
    return [two, one, three]


def fewer(one, two, _three):
    return [one, two]


def twice(one, two, _three):
    return [one, two, two]


def more(one, two, three):
    return [one, two, three, one]


def other(one, two, three):
    return [one, two, three[:-1] + bytes((three[-1] ^ 1,))]


@pytest.mark.parametrize("change", [order, fewer, twice, more, other])
async def test_a_tag_is_for_exactly_these_keys_in_this_order(shop, gateway, keys, change):
    blobs = b"".join(change(*each(keys[1])))
    done = await unwrap(gateway, blobs, await shop.part(keys[1]))
    assert set(done.bad.values()) == {Code.FORBIDDEN}
    assert not any(done.keys)


async def test_a_tag_is_for_one_gateway(shop, gateway, keys):
    done = await unwrap(gateway, keys[1], await shop.part(keys[1], gateway="gw-eu-2"))
    assert (set(done.bad.values()), done.keys) == ({Code.FORBIDDEN}, NO_KEYS)


async def test_a_tag_is_for_one_service_and_one_tenant(core, gateway, shop, keys):
    core.registry.put(following(core.registry.app("shop"), grants=app("x", "acme/*").grants))
    core.learn(Service(tenant="acme", service="hr", revision=1))
    await core.creator.service(Service(tenant="acme", service="hr", revision=1))
    for place in ("acme/hr", "bcme/crm"):
        done = await unwrap(gateway, keys[1], await shop.part(keys[1], place=place))
        assert set(done.bad.values()) == {Code.FORBIDDEN}
        assert not any(done.keys)


async def test_a_tag_is_for_one_version_of_the_service_key(shop, gateway, keys):
    done = await unwrap(gateway, keys[1], await shop.part(keys[1], version=2))
    assert set(done.bad.values()) == {Code.FORBIDDEN}


async def test_a_tag_ends_with_the_deadline_of_its_application(core, shop, gateway, keys):
    part = await shop.part(keys[1], within_s=2.0)
    core.world.clock.now += 1.9
    assert (await unwrap(gateway, keys[1], part)).bad == {}
    core.world.clock.now += 0.2 + limits.SKEW_MS / 1000
    assert set((await unwrap(gateway, keys[1], part)).bad.values()) == {Code.UNKNOWN_ASK}
    far = await shop.part(keys[1], within_s=limits.DEADLINE_MAX_MS / 1000 + 60)
    assert set((await unwrap(gateway, keys[1], far)).bad.values()) == {Code.FORBIDDEN}


@pytest.mark.parametrize("field", ["deadline_ms", "tags", "session_id", "app"])
async def test_nothing_of_an_ask_can_be_exchanged(core, shop, gateway, keys, field):
    core.registry.put(app("till", "acme/crm"))
    till = Application(core, name="till")
    part, others = await shop.part(keys[1]), await till.part(keys[1])
    ask, theirs = part.asks["core-eu"], others.asks["core-eu"]
    if field == "app":
        forged = replace(part, app="till")
    else:
        new = {
            "deadline_ms": ask.deadline_ms + 1,
            "tags": bytes(TAG_SIZE),
            "session_id": theirs.session_id,
        }[field]
        forged = replace(part, asks={"core-eu": ask.model_copy(update={field: new})})
    done = await unwrap(gateway, keys[1], forged)
    assert set(done.bad.values()) <= {Code.FORBIDDEN, Code.UNKNOWN_ASK}
    assert len(done.bad) == 3
    assert not any(done.keys)


ENDS = [
    {"revoked": True},
    {"regions": ["us"]},
    {"not_after_ms": 1},
    {"grants": []},
    {"grants": [AppGrant(tenant="acme", service="crm", verbs=["encrypt"])]},
    {"grants": [AppGrant(tenant="bcme", service="*", verbs=["decrypt"])]},
    {"public_key": identity("till").public},
]


@pytest.mark.parametrize("fields", ENDS, ids=lambda fields: next(iter(fields)))
async def test_an_application_that_may_no_more_gives_a_gateway_nothing(
    core, shop, gateway, keys, fields
):
    part = await shop.part(keys[1])
    core.registry.put(following(core.registry.app("shop"), **fields))
    done = await unwrap(gateway, keys[1], part)
    assert len(done.bad) == 3
    assert set(done.bad.values()) <= {Code.FORBIDDEN, Code.UNKNOWN_ASK}
    assert not any(done.keys)
    ((_, code, count, failed),) = unwraps(core)
    assert (code is not Code.OK, count, failed) == (True, 3, 3)


async def test_a_hold_on_its_key_ends_it_and_it_opens_no_session(core, shop, gateway, keys):
    part = await shop.part(keys[1])
    state = HoldState(hold(scope="app", target=key_target("shop", identity("shop").public)), b"r")
    core.revocations.learn(state)
    assert set((await unwrap(gateway, keys[1], part)).bad.values()) == {Code.FORBIDDEN}
    assert isinstance(await refusal(Application(core).asks.sessions()), KcmError)


@pytest.mark.parametrize("key", ["till", "gw-eu"])
async def test_no_other_key_opens_a_session_in_its_name(core, key):
    assert isinstance(await refusal(Application(core, key=key).asks.sessions()), KcmError)


async def test_a_gateway_opens_no_session_of_an_application(core):
    assert isinstance(await refusal(Application(core, name="gw-eu").asks.sessions()), KcmError)


async def test_one_bad_ask_does_not_harm_the_others_of_a_request(core, shop, gateway, keys):
    core.registry.put(app("till", "acme/crm"))
    till = Application(core, name="till")
    plain, blobs = keys
    one, rest = blobs[:72], blobs[72:]
    good, bad = await shop.part(rest), await till.part(blobs)
    done = await unwrap(gateway, one + rest, bad, good, counts=[1, 2])
    assert (done.bad, done.keys[:KEY]) == ({0: Code.FORBIDDEN}, bytes(KEY))
    assert done.keys[KEY:] == plain[KEY:]
    assert sorted(unwraps(core)) == [
        ("", Code.FORBIDDEN, 1, 1),
        ("app shop", Code.OK, 2, 0),
    ]


async def test_what_an_ask_does_not_cover_is_not_unwrapped_with_it(core, shop, gateway, keys):
    plain, blobs = keys
    part = await shop.part(blobs[:72])
    done = await unwrap(gateway, blobs, part, counts=[1])
    assert done.bad == {1: Code.FORBIDDEN, 2: Code.FORBIDDEN}
    assert done.keys == plain[:KEY] + bytes(2 * KEY)
    assert sorted(unwraps(core)) == [("", Code.FORBIDDEN, 2, 2), ("app shop", Code.OK, 1, 0)]


async def test_a_key_that_does_not_authenticate_counts_for_its_application(
    core, shop, gateway, keys
):
    blobs = keys[1][:-1] + bytes((keys[1][-1] ^ 1,))
    done = await unwrap(gateway, blobs, await shop.part(blobs))
    assert done.bad == {2: Code.TAMPERED}
    assert unwraps(core) == [("app shop", Code.OK, 3, 1)]


async def test_a_core_that_started_again_knows_no_ask(world, core, shop, keys):
    part = await shop.part(keys[1])
    again = world.core()
    again.learn()
    service_gateways(again)
    again.registry.put(app("shop", "acme/crm"))
    done = await unwrap(again.client(), keys[1], part)
    assert set(done.bad.values()) == {Code.UNKNOWN_ASK}
    shop.cores["core-eu"] = again
    assert shop.asks.doubt(await shop.asks.sessions())
    done = await unwrap(again.client(), keys[1], await shop.part(keys[1]))
    assert done.keys == keys[0]


async def test_sessions_are_given_up_only_every_few_seconds(core, shop):
    sessions = await shop.asks.sessions()
    assert shop.asks.doubt(sessions)
    assert not shop.asks.doubt(await shop.asks.sessions())
    assert [verb for core, verb in shop.carried if core == "core-eu"] == ["key", "open-app"] * 2


async def test_for_a_plain_application_the_core_relies_on_the_gateway(core, gateway, keys):
    core.registry.put(app("till", "acme/crm", plain=True))
    assert (await unwrap(gateway, keys[1])).keys == keys[0]
    core.registry.put(app("plain", "acme/crm"))
    named = await Application(core, name="plain").part(keys[1])
    await unwrap(gateway, keys[1], named)
    assert unwraps(core) == [("plain", Code.OK, 3, 0), ("app plain", Code.OK, 3, 0)]
    core.registry.put(following(core.registry.app("till"), plain=True, revoked=True))
    assert set((await unwrap(gateway, keys[1])).bad.values()) == {Code.FORBIDDEN}


async def test_the_grants_of_the_gateway_count_for_every_application(core, shop, gateway, keys):
    core.registry.put(following(core.registry.app("shop"), grants=app("x", "bcme/crm").grants))
    part = await shop.part(keys[1], place="bcme/crm")
    error = await refusal(unwrap(gateway, keys[1], part, place="bcme/crm"))
    assert error.code is Code.FORBIDDEN


async def test_a_gateway_that_lies_in_what_it_carries_gets_no_session(core, shop):
    lies = [
        lambda *_: b"",
        lambda _core, verb, _body, answer: answer[:-1] + b"x" if verb == "open-app" else answer,
        lambda _core, verb, _body, answer: answer[:-1] + b"x" if verb == "key" else answer,
    ]
    for lie in lies:
        shop.bend = lie
        assert isinstance(await refusal(shop.asks.sessions()), KcmError)
        core.world.clock.now += 60
    shop.bend = lambda *told: told[3]
    assert await shop.asks.sessions()


async def test_a_gateway_puts_no_name_of_its_choice_into_the_audit(core, gateway):
    _, blobs = await gateway.wrap("acme", "crm", "record", fresh(1024))
    asks = [
        Ask(core="core-eu", session_id=bytes(16), deadline_ms=9, tags=bytes(32)) for _ in range(2)
    ]
    parts = [AppAsks(f"app{number}", asks[:1]).part(0) for number in range(1024)]
    done = await unwrap(gateway, blobs, *parts)
    assert set(done.bad.values()) == {Code.UNKNOWN_ASK}
    assert unwraps(core) == [("", Code.UNKNOWN_ASK, 1024, 1024)]


async def test_a_gateway_that_lies_uses_up_no_tickets(core, shop):
    for _ in range(100):
        shop.asks.doubt(await shop.asks.sessions())
        core.world.clock.now += REOPEN_S
    opened = shop.carried.count(("core-eu", "open-app"))
    assert opened <= 1 + TICKETS + 100 * REOPEN_S / TICKET_S


async def test_an_application_whose_session_ends_while_it_asks_gets_others(core, shop, keys):
    sessions = await shop.asks.sessions()
    shop.asks.doubt(sessions)
    with pytest.raises(AsksEnded):
        shop.asks.asks(sessions, "gw-eu", DataSubject("decrypt", "acme", "crm"), [bytes(76)], 5.0)
