"""The SDK's sealed requests: to two Gateways, past those that are away, busy, hostile or new."""

from __future__ import annotations

import pytest
from kcm._internal.rpc import Environment, ask_once
from kcm.errors import Forbidden
from kcm_runtime.nats.ports import NotAllowed
from kcm_schemas import data_subjects
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import EncryptReply, EncryptRequest, Failure, decode_reply
from kcm_schemas.session import UNSEALED, SealedReply, SealedRequest
from kcm_sessions.peer_sessions import RENEW_S
from kcm_sessions.sessions import TICKET_S
from kcm_trust.verify import Verifier

from tests.fakes.bus import Clock
from tests.unit.app_rig import ROSTER, Bus, Served, app, channel
from tests.unit.refusals import refusal

SUBJECT = data_subjects.gateway("eu", "encrypt", "acme", "crm")


@pytest.fixture
def bus():
    clock = Clock()
    gateways = [Served(name, clock) for name in ("gw-eu", "gw-eu-2")]
    for gateway in gateways:
        gateway.registry.put(app("shop", "acme/crm"))
    return Bus(*gateways)


@pytest.fixture
def sdk(bus):
    return channel(bus)


def clock(bus):
    return bus.gateways["gw-eu"].clock


def request(bus):
    deadline = clock(bus).unix_ms() + 5000
    return encode(
        EncryptRequest(
            v=1, deadline_ms=deadline, dek_scope="record", plaintexts=[b"secret"], contexts=[]
        )
    )


async def ask(bus, sdk):
    return decode_reply(EncryptReply, await sdk.request(SUBJECT, request(bus), 2.0))


def executed(bus):
    return sum(gateway.engine.calls for gateway in bus.gateways.values())


async def settled(bus, sdk):
    """Both sessions are open."""
    for _ in range(4):
        await ask(bus, sdk)
        clock(bus).now += 6  # a second session is opened in the background
        await clock(bus).sleep(0)
    assert len([1 for _, verb, _ in bus.asked if verb == "open"]) == 2


async def test_requests_take_turns_between_two_gateways(bus, sdk):
    await settled(bus, sdk)
    before = len(bus.works())
    for _ in range(6):
        await ask(bus, sdk)
    assert bus.works()[before:].count("gw-eu") == 3


async def test_a_gateway_that_is_away_costs_one_request_and_no_error(bus, sdk):
    await settled(bus, sdk)
    gone = bus.gateways.pop("gw-eu")
    bus.gateways["gw-eu-2"].clock = gone.clock
    for _ in range(6):
        assert (await sdk.request(SUBJECT, encode_request(gone), 2.0)) is not None
    assert bus.works()[-4:] == ["gw-eu-2"] * 4


def encode_request(gateway):
    return encode(
        EncryptRequest(
            v=1, deadline_ms=gateway.clock.unix_ms() + 5000, dek_scope="record",
            plaintexts=[b"secret"], contexts=[],
        )
    )  # fmt: skip


@pytest.mark.parametrize("code", sorted(set(Code) - {Code.OK}, key=str))
async def test_a_forged_refusal_counts_for_nothing_but_another_gateway(bus, sdk, code):
    await settled(bus, sdk)
    forged = encode(Failure(v=1, error=code, detail="forged"))
    bus.bend = lambda name, verb, body: forged if (name, verb) == ("gw-eu", "encrypt") else None
    for _ in range(4):
        assert (await ask(bus, sdk)).records == [b"secret"]
    bus.bend = lambda name, verb, body: forged
    error = await refusal(ask(bus, sdk))
    assert error.code in {Code.UNAVAILABLE, Code.BUSY}
    assert "forged" not in error.detail
    assert code in UNSEALED or error.code is Code.UNAVAILABLE


async def test_a_forged_answer_is_never_believed(bus, sdk):
    await settled(bus, sdk)
    reply = encode(EncryptReply(v=1, lease_ms=5000, records=[b"forged"], codes=[]))
    for forged in (reply, encode(SealedReply(v=1, sealed=b"\x00" * 100)), b"", b"\xc1"):
        bus.bend = lambda name, verb, body, forged=forged: forged if verb == "encrypt" else None
        assert (await refusal(ask(bus, sdk))).code is Code.UNAVAILABLE
        clock(bus).now += 60


async def test_an_answer_of_another_request_is_not_accepted(bus, sdk):
    await settled(bus, sdk)
    old = {}

    def keep(name, verb, body):
        return old.get(name) if verb == "encrypt" else None

    await ask(bus, sdk)
    await ask(bus, sdk)
    for (name, verb, _), answer in zip(bus.asked, bus.answers, strict=True):
        if verb == "encrypt":
            old[name] = answer
    bus.bend = keep
    assert (await refusal(ask(bus, sdk))).code is Code.UNAVAILABLE


async def test_a_thief_who_offers_a_key_of_its_own_gets_nothing(bus, sdk):
    """It is a Gateway of the roster, and answers in the place of another one."""
    thief = bus.gateways["gw-eu-2"]
    key = thief.keys.statement()
    bus.bend = lambda name, verb, body: key if (name, verb) == ("gw-eu", "key") else None
    for _ in range(3):
        await ask(bus, sdk)
    assert set(bus.works()) == {"gw-eu-2"}
    assert ("gw-eu", "open") not in {(name, verb) for name, verb, _ in bus.asked}


async def test_a_restarted_gateway_gets_a_new_session_and_executes_nothing_twice(bus, sdk):
    await settled(bus, sdk)
    before = executed(bus)
    for name in list(bus.gateways):
        fresh = Served(name, clock(bus))
        fresh.registry.put(app("shop", "acme/crm"))
        fresh.engine.calls = bus.gateways[name].engine.calls
        bus.gateways[name] = fresh
    for _ in range(4):
        await ask(bus, sdk)
    assert executed(bus) == before + 4


async def test_a_sealed_refusal_is_what_the_caller_gets(bus, sdk):
    await settled(bus, sdk)
    for gateway in bus.gateways.values():
        gateway.engine.error = KcmError(Code.TENANT_KILLED)
    before = len(bus.works())
    assert (await refusal(ask(bus, sdk))).code is Code.TENANT_KILLED
    assert len(bus.works()) == before + 1


async def test_after_a_sealed_unavailable_the_other_gateway_is_asked(bus, sdk):
    await settled(bus, sdk)
    bus.gateways["gw-eu"].engine.error = KcmError(Code.UNAVAILABLE, "no Core")
    for _ in range(4):
        assert (await ask(bus, sdk)).records == [b"secret"]


async def test_sessions_are_renewed_before_they_end(bus, sdk):
    await settled(bus, sdk)
    clock(bus).now += RENEW_S
    for _ in range(4):
        await ask(bus, sdk)
        await clock(bus).sleep(6)
    assert len([1 for _, verb, _ in bus.asked if verb == "open"]) >= 3
    clock(bus).now += TICKET_S + 1
    assert (await ask(bus, sdk)).records == [b"secret"]


async def test_counters_rise_and_a_retry_takes_the_next(bus, sdk):
    await settled(bus, sdk)
    for _ in range(6):
        await ask(bus, sdk)
    seen = [decode(SealedRequest, body) for _, verb, body in bus.asked if verb == "encrypt"]
    assert len({(one.session_id, one.counter) for one in seen}) == len(seen)


async def test_when_every_gateway_fails_the_roster_is_asked_for(bus, sdk):
    bus.gateways.clear()
    error = None
    try:
        await sdk.request(SUBJECT, b"", 2.0)
    except KcmError as raised:
        error = raised
    assert error is not None
    assert error.code is Code.UNAVAILABLE
    assert sdk.roster.refreshed == 1


async def test_a_closed_channel_sends_nothing(bus, sdk):
    await settled(bus, sdk)
    await sdk.close()
    assert bus.closed
    before = len(bus.asked)
    error = await refusal(sdk.request(SUBJECT, request(bus), 2.0))
    assert (error.code, error.detail) == (Code.UNAVAILABLE, "the client is closed")
    assert len(bus.asked) == before


async def test_a_gateway_with_a_newer_roster_is_asked_for_it(bus):
    sdk = channel(bus)
    newer = ROSTER.model_copy(update={"version": ROSTER.version + 1})
    fresh = Served("gw-eu-2", clock(bus), verifier=Verifier(newer))
    fresh.registry.put(app("shop", "acme/crm"))
    bus.gateways["gw-eu-2"] = fresh
    await settled(bus, sdk)
    await clock(bus).sleep(0)
    assert sdk.roster.asked == ["gw-eu-2"]


async def test_the_roster_is_asked_for_while_every_request_succeeds(bus, sdk):
    await ask(bus, sdk)
    sdk.roster.old = True
    await ask(bus, sdk)
    await clock(bus).sleep(0)
    assert sdk.roster.refreshed == 1


async def test_a_held_gateway_gets_nothing_once_the_hold_is_known(bus, sdk):
    await settled(bus, sdk)
    sdk.roster.hold("gw-eu")
    before = len(bus.asked)
    for _ in range(4):
        await ask(bus, sdk)
    assert {name for name, _, _ in bus.asked[before:]} == {"gw-eu-2"}


async def test_the_answer_of_a_gateway_that_is_held_meanwhile_is_not_believed(bus, sdk):
    await settled(bus, sdk)

    def hold(name, verb, _body):
        if verb == "encrypt" and not sdk.roster.held_names:
            sdk.roster.held_names.add(name)  # its answer is on its way
            first.append(name)

    first = []
    bus.bend = hold
    assert (await ask(bus, sdk)).records == [b"secret"]
    assert bus.works()[-2:] == [first[0], ({"gw-eu", "gw-eu-2"} - set(first)).pop()]


async def test_a_gateway_inside_of_an_application_is_no_gateway_for_others(bus, sdk):
    """Its key is in the process of another application, whose thief would get payloads."""
    inside = [
        one.model_copy(update={"application": "bank" if one.instance == "gw-eu" else None})
        for one in ROSTER.instances
    ]
    sdk.roster.verifier = Verifier(ROSTER.model_copy(update={"instances": inside}))
    for _ in range(4):
        await ask(bus, sdk)
    assert {name for name, _, _ in bus.asked} == {"gw-eu-2"}


async def test_what_the_broker_does_not_let_it_send_is_refused_for_good(bus, sdk):
    """The request reaches no Gateway, and sending it again does not help."""
    await settled(bus, sdk)

    def refuse(_name, verb, _body):
        if verb == "encrypt":
            raise NotAllowed

    bus.bend = refuse
    with pytest.raises(Forbidden, match="encrypt for tenant acme, service crm"):
        await ask_once(
            Environment(clock(bus)),
            sdk.request,
            SUBJECT,
            lambda _: request(bus),
            lambda raw: (raw, 1.0),
            1.0,
        )
