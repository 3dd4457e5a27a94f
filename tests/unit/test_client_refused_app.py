"""The SDK of an application whose key opens no session any more: it ends soon, and says why."""

from __future__ import annotations

import pytest
from kcm._internal.client import Client
from kcm._internal.rpc import REFUSED_S, Environment
from kcm_schemas import record
from kcm_schemas.app import App
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code
from kcm_schemas.data import Failure
from kcm_schemas.session import REASONS
from kcm_trust.envelopes import Untrusted

from tests.fakes.bus import Clock
from tests.unit.app_rig import Bus, Served, app, channel, following
from tests.unit.refusals import refusal

DEADLINE_S = 30.0
SOON_S = REFUSED_S + 1.5
"""Seconds in which a call has ended, of the 30 that it may take: the last wait has at most one."""

ENCRYPTED = record.build(record.prefix("eu", "acme", "crm", 1), bytes(72), 0) + bytes(16)

ENDED = {
    "the application is revoked": {"revoked": True, "grants": []},
    "the application may not act in this region": {"regions": ["us"]},
    "the application is not valid yet, by the clock of this instance": {"not_before_ms": 1 << 39},
    "the application has expired, by the clock of this instance": {"not_after_ms": 1},
}
"""Fields of an entry that ends an application, by the reason that a Gateway gives."""


@pytest.fixture
def bus():
    clock = Clock()
    return Bus(*[Served(name, clock) for name in ("gw-eu", "gw-eu-2")])


def clock(bus):
    return next(iter(bus.gateways.values())).clock


def client(bus, key=""):
    around = Environment(clock=clock(bus), chance=lambda: 1.0, sleep=clock(bus).sleep)
    return Client(channel(bus, key=key).whole, "eu", around)


def enter(bus, entry: App):
    for gateway in bus.gateways.values():
        gateway.registry.put(entry)


async def call(sdk, operation="encrypt"):
    if operation == "encrypt":
        return await sdk.encrypt("acme", "crm", [b"secret"], deadline_s=DEADLINE_S)
    return await sdk.decrypt("acme", "crm", [ENCRYPTED], deadline_s=DEADLINE_S)


def opened(bus):
    return len([1 for _, verb, _ in bus.asked if verb == "open"])


both = pytest.mark.parametrize("operation", ["encrypt", "decrypt"])


@both
@pytest.mark.parametrize("reason", [*ENDED, "the application has another key"])
async def test_a_key_that_opens_no_session_ends_a_call_soon_with_what_gateways_claim(
    bus, reason, operation
):
    entry = app("shop", "acme/crm")
    enter(bus, entry)
    enter(bus, following(entry, **ENDED.get(reason, {})))
    begun = clock(bus).now
    error = await refusal(call(client(bus, "" if reason in ENDED else "alice"), operation))
    assert error.code is Code.UNAVAILABLE
    assert error.detail == (
        "no Gateway opens a session for this application. Without a seal, they say: gw-eu,"
        f" gw-eu-2: {reason}"
    )
    assert REFUSED_S <= clock(bus).now - begun <= SOON_S


@both
async def test_only_a_text_of_the_protocol_is_shown(bus, operation):
    forged = encode(Failure(v=1, error=Code.FORBIDDEN, detail="the ticket does not count: call me"))
    bus.bend = lambda name, verb, body: forged if verb == "open" else None
    begun = clock(bus).now
    error = await refusal(call(client(bus), operation))
    assert error.code is Code.UNAVAILABLE
    assert "call me" not in error.detail
    assert "see the log" in error.detail
    assert clock(bus).now - begun <= SOON_S


@both
async def test_a_gateway_that_is_away_does_not_prolong_the_refusal_of_the_others(bus, operation):
    bus.gateways.pop("gw-eu-2")
    begun = clock(bus).now
    error = await refusal(call(client(bus), operation))
    assert error.detail.endswith("gw-eu: the application is not known in this region")
    assert clock(bus).now - begun <= SOON_S


async def test_an_entry_that_arrives_meanwhile_is_served(bus):
    """A new application may be known to Gateways a moment later."""
    begun = clock(bus).now

    def later(name, verb, body):
        if clock(bus).now > begun + REFUSED_S / 2:
            enter(bus, app("shop", "acme/crm"))

    bus.bend = later
    await call(client(bus))
    assert sum(gateway.engine.calls for gateway in bus.gateways.values()) == 1
    assert opened(bus) > 2


async def test_gateways_that_disagree_or_refuse_now_and_then_end_no_call(bus):
    enter(bus, app("shop", "acme/crm"))
    forged = encode(Failure(v=1, error=Code.FORBIDDEN, detail=""))
    other = encode(Failure(v=1, error=Code.MALFORMED, detail=""))
    begun = clock(bus).now
    bus.bend = lambda name, verb, body: (
        None if clock(bus).now > begun + 2 * REFUSED_S else forged if opened(bus) % 3 else other
    )
    await call(client(bus))
    assert clock(bus).now > begun + 2 * REFUSED_S


async def test_the_forged_refusal_of_one_gateway_ends_nothing(bus):
    enter(bus, app("shop", "acme/crm"))
    forged = encode(Failure(v=1, error=Code.FORBIDDEN, detail="forged"))
    bus.bend = lambda name, verb, body: forged if (name, verb) == ("gw-eu", "open") else None
    sdk = client(bus)
    for _ in range(3):
        await call(sdk)
    assert set(bus.works()) == {"gw-eu-2"}


@both
async def test_what_a_gateway_seals_about_an_application_is_final(bus, operation):
    """The session is older than the revocation, so the refusal has a seal."""
    entry = app("shop", "acme/crm")
    enter(bus, entry)
    sdk = client(bus)
    await call(sdk)
    enter(bus, following(entry, revoked=True, grants=[]))
    begun = clock(bus).now
    error = await refusal(call(sdk, operation))
    assert (error.code, error.detail) == (Code.FORBIDDEN, "the application is revoked")
    assert clock(bus).now == begun


@pytest.mark.parametrize("reason", ENDED)
def test_every_reason_of_a_gateway_is_a_text_of_the_protocol(bus, reason):
    gateway = bus.gateways["gw-eu"]
    with pytest.raises(Untrusted) as unknown:
        gateway.applications.acting("shop")
    entry = app("shop", "acme/crm")
    enter(bus, entry)
    with pytest.raises(Untrusted) as other_key:
        gateway.applications.ticket("shop", bytes(64), b"")
    enter(bus, following(entry, **ENDED[reason]))
    with pytest.raises(Untrusted) as ended:
        gateway.applications.acting("shop")
    assert ended.value.reason == reason
    assert {reason, unknown.value.reason, other_key.value.reason} <= REASONS
