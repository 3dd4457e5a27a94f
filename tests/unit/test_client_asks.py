"""Requests to decrypt, from the SDK through a Gateway to a Core: each asks for its data keys."""

from __future__ import annotations

import pytest
from kcm_schemas import data_subjects, record
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import DecryptReply, DecryptRequest, Failure, decode_reply
from kcm_schemas.session import SealedRequest

from tests.unit.app_rig import Bus, Served, app, channel
from tests.unit.ask_rig import BLOB, service_gateways, unwrap
from tests.unit.core_rig import World
from tests.unit.refusals import refusal
from tests.unit.test_core_wrapping import fresh
from tests.unit.test_gateway_applications import plain

SUBJECT = data_subjects.gateway("eu", "decrypt", "acme", "crm")


@pytest.fixture
async def core(world: World):
    core = await world.core().made()
    service_gateways(core)
    core.registry.put(app("shop", "acme/crm"))
    return core


@pytest.fixture
def gateway(core):
    """A Gateway that reaches that Core, and whose engine keeps what an application asks."""
    made = Served(clock=core.world.clock)
    made.registry.put(app("shop", "acme/crm"))
    made.cores[core.me.name] = core
    return made


@pytest.fixture
def bus(gateway):
    return Bus(gateway)


async def sealed_records(core):
    """Two records with a key each, a third one under the second key, their keys and names."""
    keys = fresh(2)
    _, blobs = await core.client().wrap("acme", "crm", "record", keys)
    start = record.prefix("eu", "acme", "crm", 1)
    one, two = blobs[:BLOB], blobs[BLOB:]
    records = [
        record.build(start, wrapped, index) + bytes(16)
        for wrapped, index in ((one, 0), (two, 0), (two, 1))
    ]
    return records, keys.tobytes(), blobs


async def ask(sdk, gateway, records):
    deadline = gateway.clock.unix_ms() + 5000
    body = encode(DecryptRequest(v=1, deadline_ms=deadline, records=records, contexts=[]))
    names = record.key_names("eu", "acme", "crm", records)
    return decode_reply(DecryptReply, await sdk.decrypt(names, SUBJECT, body, 2.0))


async def test_what_the_sdk_asks_opens_exactly_the_keys_of_its_request(core, gateway, bus):
    records, keys, blobs = await sealed_records(core)
    await ask(channel(bus), gateway, [*records, b"no record"])
    part = gateway.engine.asks.part(0)
    assert part.cores == ("core-eu",)
    assert (await unwrap(core.client(), blobs, part)).keys == keys
    assert gateway.engine.asks.part(1) is None
    assert not (await unwrap(core.client(), blobs[:BLOB], part)).keys.strip(b"\0")


async def test_nothing_is_asked_to_encrypt_or_for_records_of_another_service(core, gateway, bus):
    sdk = channel(bus)
    subject = data_subjects.gateway("eu", "encrypt", "acme", "crm")
    await sdk.request(subject, plain(gateway), 2.0)
    await ask(sdk, gateway, [b"no record"])
    assert gateway.engine.asks.part(0) is None
    assert not [verb for _, verb, _ in bus.asked if verb == "session"]


async def test_sessions_with_cores_are_kept_and_carried_under_the_seal(core, gateway, bus):
    records, *_ = await sealed_records(core)
    sdk = channel(bus)
    for _ in range(3):
        await ask(sdk, gateway, records)
    carried = [subject.split(".")[6:] for subject in bus.subjects if ".session." in subject]
    assert [one for one in carried if one[0] == "core-eu"] == [
        ["core-eu", "key"],
        ["core-eu", "open-app"],
    ]
    bodies = [body for _, verb, body in bus.asked if verb == "session"]
    assert not any(b"ciphertext" in body for body in bodies)


async def test_a_core_that_knows_no_session_gets_another_one_once(core, gateway, bus):
    records, *_ = await sealed_records(core)
    sdk = channel(bus)
    await ask(sdk, gateway, records)
    gateway.engine.error = KcmError(Code.UNKNOWN_ASK)
    gateway.engine.work = lambda: None
    calls = gateway.engine.calls

    def then_well():
        if gateway.engine.calls - calls == 2:
            gateway.engine.error = None

    gateway.engine.work = then_well
    assert (await ask(sdk, gateway, records)).plaintexts
    gateway.engine.error, gateway.engine.work = KcmError(Code.UNKNOWN_ASK), lambda: None
    before = len(bus.works())
    error = await refusal(ask(sdk, gateway, records))
    assert error.code is Code.UNKNOWN_ASK
    assert error.retryable
    assert len(bus.works()) - before == 1  # a session was given up a moment ago


async def test_a_core_that_is_not_reached_makes_no_gateway_suspect(core, gateway, bus):
    records, *_ = await sealed_records(core)
    gateway.cores.clear()
    sdk = channel(bus)
    error = await refusal(ask(sdk, gateway, records))
    assert error.code is Code.UNAVAILABLE
    gateway.cores[core.me.name] = core
    core.world.clock.now += 60
    assert (await ask(sdk, gateway, records)).plaintexts


@pytest.mark.parametrize(
    ("place", "size", "code"),
    [
        ("core-eu/open", 8, Code.MALFORMED),
        ("core-eu/roster", 8, Code.MALFORMED),
        ("core-eu/open-app", 16 * 1024 + 1, Code.MALFORMED),
    ],
)
async def test_a_gateway_carries_nothing_else(core, gateway, bus, place, size, code):
    sdk, seen = channel(bus), []

    class Seeing:
        async def answer(self, *told):
            seen.append(told)
            return b""

    gateway.cores["core-eu"] = Seeing()
    subject = data_subjects.gateway("eu", "session", *place.split("/"))
    answer = await sdk.request(subject, bytes(size), 2.0)
    assert (await refusal(_read(answer))).code is code
    assert seen == []


async def _read(answer):
    return decode_reply(DecryptReply, answer)


async def test_asks_are_bound_to_their_request(core, gateway, bus):
    """Whoever is on the bus cannot take the asks of one request to another."""
    records, *_ = await sealed_records(core)
    sdk = channel(bus)
    await ask(sdk, gateway, records)
    calls = gateway.engine.calls

    def stripped(_gateway, verb, body):
        if verb != "decrypt":
            return None
        message = SealedRequest.model_validate(
            decoded(body) | {"asks": []},
        )
        bus.bend = None
        bus.forged = encode(message)
        return encode(Failure(v=1, error=Code.BUSY, detail=""))

    bus.bend = stripped
    await refusal(ask(sdk, gateway, records))
    subject = data_subjects.gateway_at("eu", "gw-eu", "decrypt", "acme", "crm")
    answer = await gateway.answer(subject, bus.forged)
    assert (await refusal(_read(answer))).code is Code.UNKNOWN_SESSION
    assert gateway.engine.calls == calls


def decoded(body):
    from kcm_schemas.codec import decode

    return dict(decode(SealedRequest, body))


async def test_a_gateway_that_lies_about_what_cores_know_is_left_for_another_one(
    core, gateway, bus
):
    records, *_ = await sealed_records(core)
    other = Served("gw-eu-2", clock=core.world.clock)
    other.registry.put(app("shop", "acme/crm"))
    other.cores[core.me.name] = core
    bus.gateways["gw-eu-2"] = other
    sdk = channel(bus)
    for _ in range(4):
        liar = gateway if bus.works()[-1:] != ["gw-eu-2"] else other
        liar.engine.error = KcmError(Code.UNKNOWN_ASK)
        assert (await ask(sdk, gateway, records)).plaintexts
        liar.engine.error = None
        core.world.clock.now += 5
