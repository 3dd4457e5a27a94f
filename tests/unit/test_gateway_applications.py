"""Applications at a Gateway: who is served, for what, once, and on record."""

from __future__ import annotations

import pytest
from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.registry_lease import PATIENCE_S
from kcm_schemas import data_subjects
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import DecryptRequest, EncryptReply, EncryptRequest, Failure, decode_reply
from kcm_schemas.limits import SKEW_MS
from kcm_schemas.session import SealedRequest
from kcm_sessions.sessions import APPLICATIONS, Limits

from tests.unit.app_rig import Bus, Served, app, channel, following
from tests.unit.refusals import refusal, refused
from tests.vectors.families.messages import identity


@pytest.fixture
def gateway():
    made = Served()
    made.registry.put(app("shop", "acme/crm"))
    return made


@pytest.fixture
def bus(gateway):
    return Bus(gateway)


def plain(gateway, verb="encrypt"):
    deadline = gateway.clock.unix_ms() + 5000
    if verb == "decrypt":
        return encode(DecryptRequest(v=1, deadline_ms=deadline, records=[b"secret"], contexts=[]))
    return encode(
        EncryptRequest(
            v=1, deadline_ms=deadline, dek_scope="record", plaintexts=[b"secret"], contexts=[]
        )
    )


async def ask(bus, sdk, place="acme/crm", verb="encrypt"):
    """The reply, or the error that the Gateway sealed."""
    gateway = next(iter(bus.gateways.values()))
    subject = data_subjects.gateway("eu", verb, *place.split("/"))
    return decode_reply(EncryptReply, await sdk.request(subject, plain(gateway, verb), 2.0))


async def test_a_granted_request_is_served_and_recorded_in_the_applications_name(gateway, bus):
    reply = await ask(bus, channel(bus))
    assert reply.records == [b"secret"]
    assert gateway.audit.events == [("data.encrypt", Code.OK, 1, 0)]
    assert gateway.audit.actors == ["shop"]


async def test_nothing_of_a_request_or_its_reply_is_on_the_bus_in_clear(gateway, bus):
    await ask(bus, channel(bus))
    assert not any(b"secret" in message for _, _, message in bus.asked)
    assert not any(b"secret" in answer for answer in bus.answers)


@pytest.mark.parametrize("place", ["bcme/crm", "acme/hr", "acme-2/crm"])
async def test_what_no_grant_covers_is_refused_in_the_applications_name(gateway, bus, place):
    error = await refusal(ask(bus, channel(bus), place))
    assert error.code is Code.FORBIDDEN
    assert "shop has no grant to encrypt" in error.detail
    assert gateway.engine.calls == 0
    assert gateway.audit.events == [("data.encrypt", Code.FORBIDDEN, 1, 1)]
    assert gateway.audit.actors == ["shop"]


async def test_a_verb_that_is_not_granted_is_refused(gateway, bus):
    entry = gateway.registry.app("shop")
    only = [entry.grants[0].model_copy(update={"verbs": ["encrypt"]})]
    gateway.registry.put(following(entry, grants=only))
    sdk = channel(bus)
    await ask(bus, sdk)
    error = await refusal(ask(bus, sdk, verb="decrypt"))
    assert error.code is Code.FORBIDDEN


async def test_the_gateways_own_grants_hold_for_every_application(gateway, bus):
    gateway.registry.put(app("other", "bcme/crm"))
    error = await refusal(ask(bus, channel(bus, "other"), "bcme/crm"))
    assert (error.code, "gw-eu has no grant" in error.detail) == (Code.FORBIDDEN, True)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"revoked": True}, "revoked"),
        ({"regions": ["us"]}, "may not act in this region"),
        ({"not_after_ms": 1}, "expired"),
        ({"not_before_ms": 1 << 41}, "not valid yet"),
    ],
)
async def test_an_open_session_ends_with_the_application(gateway, bus, fields, text):
    sdk = channel(bus)
    await ask(bus, sdk)
    gateway.registry.put(following(gateway.registry.app("shop"), **fields))
    error = await refusal(ask(bus, sdk))
    assert error.code is Code.FORBIDDEN
    assert text in error.detail
    assert gateway.engine.calls == 1


@pytest.mark.parametrize(
    "fields",
    [{"revoked": True}, {"regions": ["us"]}, {"not_after_ms": 1}, {"not_before_ms": 1 << 41}],
)
async def test_an_application_that_may_not_act_opens_no_session(gateway, bus, fields):
    gateway.registry.put(following(gateway.registry.app("shop"), **fields))
    error = await refusal(ask(bus, channel(bus)))
    assert error.code is Code.UNAVAILABLE
    assert "Without a seal, they say: gw-eu: the application" in error.detail
    assert len(gateway.sessions) == 0
    assert [kind for kind, _ in gateway.audit.all] == ["trust.refused"]


async def test_an_application_that_is_not_known_opens_no_session(gateway, bus):
    await refusal(ask(bus, channel(bus, "nobody")))
    assert len(gateway.sessions) == 0


async def test_a_revocation_during_the_work_counts(gateway, bus):
    sdk = channel(bus)
    await ask(bus, sdk)

    def revoke():
        gateway.registry.put(following(gateway.registry.app("shop"), revoked=True))

    gateway.engine.work = revoke
    assert await refused(ask(bus, sdk)) is Code.FORBIDDEN
    assert gateway.audit.events[-1] == ("data.encrypt", Code.FORBIDDEN, 1, 1)


async def test_the_old_key_ends_with_its_rotation(gateway, bus):
    sdk = channel(bus)
    await ask(bus, sdk)
    gateway.registry.put(following(gateway.registry.app("shop"), public_key=bytes((9,)) * 32))
    error = await refusal(ask(bus, sdk))
    assert (error.code, error.detail) == (Code.FORBIDDEN, "the application has another key now")


async def test_clocks_may_differ_by_the_skew(gateway, bus):
    now = gateway.clock.unix_ms()
    early = app("early", "acme/crm", not_before_ms=now + SKEW_MS)
    late = app("late", "acme/crm", not_after_ms=now - SKEW_MS + 1)
    for entry in (early, late):
        gateway.registry.put(entry)
        assert (await ask(bus, channel(bus, entry.app))).records == [b"secret"]
    for name, fields in (
        ("early-2", {"not_before_ms": now + SKEW_MS + 1}),
        ("late-2", {"not_after_ms": now - SKEW_MS}),
    ):
        gateway.registry.put(app(name, "acme/crm", **fields))
        with pytest.raises(KcmError):
            await ask(bus, channel(bus, name))


async def test_a_fork_is_not_served(gateway, bus):
    gateway.registry.put(app("shop", "acme/crm", "acme/hr"))
    assert gateway.registry.forked(("app", "shop"))
    with pytest.raises(KcmError):
        await ask(bus, channel(bus))


async def test_a_withheld_revocation_ends_with_the_registrys_lease(gateway, bus):
    """The broker keeps the new entry from this Gateway; a Core's lease entry shows it."""
    sdk = channel(bus)
    assert (await ask(bus, sdk)).records == [b"secret"]
    theirs = Registry()
    theirs.put(following(gateway.registry.app("shop"), revoked=True))
    gateway.lease.changed(gateway.registry.digests)
    now = gateway.clock.elapsed()
    gateway.lease.heard("core-eu", gateway.registry.digests, gateway.registry.digests, 9.0, now)
    gateway.lease.heard("core-eu", theirs.digests, gateway.registry.digests, 9.0, now)
    first = await ask(bus, sdk)
    assert first.lease_ms <= 1000 * PATIENCE_S
    gateway.clock.now += PATIENCE_S
    assert await refused(ask(bus, sdk)) is Code.UNAVAILABLE
    assert await refused(ask(bus, channel(bus))) is Code.UNAVAILABLE


async def test_tickets_of_a_stolen_key_do_not_block_its_successor(gateway):
    gateway = Served(bounds=Limits(sessions=64, per_caller=8, tickets=3))
    gateway.registry.put(app("shop", "acme/crm"))
    bus = Bus(gateway)
    for _ in range(3):
        await ask(bus, channel(bus))
    with pytest.raises(KcmError):
        await ask(bus, channel(bus))
    entry = gateway.registry.app("shop")
    gateway.registry.put(following(entry, public_key=identity("other").public))
    assert (await ask(bus, channel(bus, "shop", key="other"))).records == [b"secret"]


# Copies and forgeries


async def test_a_copy_of_a_request_is_never_executed(gateway, bus):
    sdk = channel(bus)
    await ask(bus, sdk)
    subject = data_subjects.gateway_at("eu", "gw-eu", "encrypt", "acme", "crm")
    message = bus.message("encrypt")
    for _ in range(100):
        failure = decode(Failure, await gateway.answer(subject, message))
        assert failure.error is Code.REPLAYED
    assert gateway.engine.calls == 1
    assert len(gateway.audit.events) == 1


async def test_a_copy_for_another_subject_is_not_executed(gateway, bus):
    await ask(bus, channel(bus))
    message = bus.message("encrypt")
    request = decode(SealedRequest, message)
    fresh = encode(request.model_copy(update={"counter": request.counter + 1}))
    for verb, service, body in (
        ("decrypt", "crm", message),
        ("encrypt", "hr", message),
        ("encrypt", "crm", fresh),
        ("decrypt", "crm", fresh),
    ):
        subject = data_subjects.gateway_at("eu", "gw-eu", verb, "acme", service)
        failure = decode(Failure, await gateway.answer(subject, body))
        assert failure.error in {Code.REPLAYED, Code.UNKNOWN_SESSION}
    assert gateway.engine.calls == 1


async def test_another_gateway_and_a_restarted_one_know_nothing_of_it(gateway, bus):
    await ask(bus, channel(bus))
    message, ticket = bus.message("encrypt"), bus.message("open")
    subject = data_subjects.gateway_at("eu", "gw-eu", "encrypt", "acme", "crm")
    for other in (Served("gw-eu"), Served("gw-eu-2")):
        other.registry.put(app("shop", "acme/crm"))
        name = other.me.name
        opened = await other.answer(data_subjects.gateway_session("eu", name, "open"), ticket)
        assert decode(Failure, opened).error is Code.UNKNOWN_SESSION
        failure = decode(Failure, await other.answer(subject, message))
        assert failure.error is Code.UNKNOWN_SESSION
        assert other.engine.calls == 0


async def test_a_ticket_opens_once(gateway, bus):
    await ask(bus, channel(bus))
    subject = data_subjects.gateway_session("eu", "gw-eu", "open")
    failure = decode(Failure, await gateway.answer(subject, bus.message("open")))
    assert failure.error is Code.UNKNOWN_SESSION
    assert len(gateway.sessions) == 1


async def test_no_ticket_of_an_instance_opens_a_session_of_an_application(gateway, bus):
    with pytest.raises(KcmError):
        await ask(bus, channel(bus, "core-eu"))
    assert len(gateway.sessions) == 0


async def test_an_application_cannot_ask_in_the_name_of_another(gateway, bus):
    gateway.registry.put(app("other", "acme/hr"))
    sdk = channel(bus)
    await ask(bus, sdk)
    request = decode(SealedRequest, bus.message("encrypt"))
    forged = encode(request.model_copy(update={"caller": "other", "counter": 9}))
    subject = data_subjects.gateway_at("eu", "gw-eu", "encrypt", "acme", "hr")
    failure = decode(Failure, await gateway.answer(subject, forged))
    assert failure.error is Code.UNKNOWN_SESSION
    assert gateway.engine.calls == 1


# Bounds


async def test_one_application_does_not_displace_another(gateway):
    gateway = Served(bounds=Limits(sessions=8, per_caller=2, tickets=100))
    for name in ("shop", "other"):
        gateway.registry.put(app(name, "acme/crm"))
    bus = Bus(gateway)
    quiet = channel(bus)
    await ask(bus, quiet)
    for _ in range(20):
        await ask(bus, channel(bus, "other"))
    opened = len([1 for _, verb, _ in bus.asked if verb == "open"])
    await ask(bus, quiet)
    assert len([1 for _, verb, _ in bus.asked if verb == "open"]) == opened
    assert len(gateway.sessions) == 3


def test_the_sessions_of_ten_thousand_processes_are_kept():
    assert APPLICATIONS.sessions >= 10_000


async def test_what_cannot_be_recorded_is_not_opened(gateway, bus):
    sdk = channel(bus)
    await ask(bus, sdk)
    gateway.audit.has_room = False
    assert await refused(ask(bus, sdk)) is Code.UNAVAILABLE
    assert gateway.engine.calls == 1


async def test_sessions_are_wiped_when_the_gateway_ends(gateway, bus):
    await ask(bus, channel(bus))
    gateway.sessions.close()
    gateway.keys.close()
    gateway.slots.close()
    assert len(gateway.sessions) == 0
    with pytest.raises(KcmError):
        await ask(bus, channel(bus))
