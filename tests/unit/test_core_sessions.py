"""Sessions of a Core: whose tickets open one, once, for how long, and how many one caller has."""

from __future__ import annotations

import dataclasses

import pytest
from kcm_core.api import gateway_sessions as module
from kcm_keymem.arena import Arena, Purged
from kcm_keymem.pages import fill_random
from kcm_keymem.random import SystemKeyRandomness
from kcm_schemas import data_subjects, limits
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.session import OPENED, SealedReply, SessionKey, Ticket
from kcm_schemas.signed import Kind
from kcm_sealing.hpke import SECRET_SIZE, HpkePrivate, HpkePublic, KeyClosed
from kcm_sealing.session import TicketInfo, open_session_as_caller
from kcm_sessions.session_keys import CURRENT_S, KEPT_S
from kcm_sessions.sessions import INSTANCES
from kcm_trust.verify import Untrusted

from tests.unit.core_rig import VERIFIER, World
from tests.unit.refusals import refused
from tests.vectors.families.messages import identity

HOUR_S = limits.SESSION_KEY_MAX_MS / 1000
TICKET_S = limits.TICKET_MAX_MS / 1000


@pytest.fixture
def core(world: World):
    return world.core()


def key_of(core) -> SessionKey:
    return VERIFIER.session_key(core.session_keys.statement())


def ticket(core, caller="gw-eu", signer=None, key=None, **changes) -> Ticket:
    key, now = key or key_of(core), core.world.clock.unix_ms()
    info = TicketInfo(
        region="eu",
        callee=key.instance,
        key_id=key.key_id,
        caller=caller,
        incarnation=bytes(16),
        session_id=SystemKeyRandomness().public(16),
        issued_ms=now,
        expiry_ms=now + limits.TICKET_MAX_MS,
    )
    info = dataclasses.replace(info, **changes)
    session, ciphertext, signature = open_session_as_caller(
        info,
        HpkePublic.from_bytes(key.public),
        identity(signer or caller).sign_raw,
        Arena(),
        fill_random,
    )
    session.close()
    return Ticket(
        v=1,
        caller=caller,
        incarnation=info.incarnation,
        session_id=info.session_id,
        key_id=info.key_id,
        issued_ms=info.issued_ms,
        expiry_ms=info.expiry_ms,
        ciphertext=ciphertext,
        signature=signature,
    )


def not_opened(core, made, code):
    count = len(core.sessions)
    with pytest.raises(KcmError) as info:
        core.sessions.open(made)
    assert info.value.code is code
    assert len(core.sessions) == count


def wiped(session) -> bool:
    with pytest.raises(Purged):
        session.keys.seal_reply(bytes(32), memoryview(b"x"), bytes(24))
    return session.keys.closed


# The key


def test_the_key_is_that_of_this_incarnation_and_signed_by_its_instance(world, core):
    key, again = key_of(core), key_of(core)
    assert (key.instance, key.region, key.incarnation) == ("core-eu", "eu", core.me.incarnation)
    assert key == again
    assert key_of(world.core()) != key, "a restart makes another one"


def test_no_other_instance_states_a_key_in_this_name(core):
    statement = identity("gw-eu").sign(Kind.SESSION_KEY, key_of(core))
    with pytest.raises(Untrusted):
        VERIFIER.session_key(encode(statement))


def test_it_changes_every_hour_and_the_old_one_opens_the_last_tickets(world, core):
    first = key_of(core)
    world.clock.now += CURRENT_S - 1
    assert key_of(core).key_id == first.key_id
    late = ticket(core)
    world.clock.now += 2
    assert key_of(core).key_id != first.key_id
    assert core.sessions.open(late)


def test_what_was_recorded_is_opened_by_no_later_theft(world, core):
    """After 70 minutes, and the skew of both clocks, the key does not exist any more."""
    first = key_of(core)
    assert KEPT_S <= HOUR_S + TICKET_S + 2 * limits.SKEW_MS / 1000
    private = core.session_keys.find(first.key_id).private
    world.clock.now += KEPT_S - 1
    core.session_keys.change()
    assert core.session_keys.find(first.key_id).private is private
    world.clock.now += 1
    core.session_keys.change()  # as the Core does by time, although nobody asks
    assert core.session_keys.find(first.key_id) is None
    with pytest.raises(KeyClosed):
        private.decrypt_into(bytes(1200), b"", memoryview(bytearray(32)))


@pytest.mark.parametrize("step_s", [-3600.0, -2.0, 2.0, 3600.0])
def test_after_a_step_of_the_wall_clock_the_key_is_stated_again(world, core, step_s, monkeypatch):
    first = key_of(core)
    wall = world.clock.unix_ms
    monkeypatch.setattr(world.clock, "unix_ms", lambda: wall() + int(step_s * 1000))
    stated = key_of(core)
    assert stated.key_id == first.key_id
    assert stated.issued_ms == first.issued_ms + step_s * 1000


def test_a_core_that_ends_has_no_key(core):
    key = key_of(core)
    core.session_keys.close()
    assert core.session_keys.find(key.key_id) is None
    with pytest.raises(KcmError):
        core.session_keys.statement()


# The ticket


async def test_a_ticket_opens_a_session_and_the_reply_proves_the_key(core):
    made = ticket(core)
    subject = data_subjects.core_session("eu", "core-eu", "open")
    reply = decode(SealedReply, await core.sessions.handle(subject, encode(made)))
    assert len(reply.sealed) == limits.NONCE_SIZE + OPENED.size + limits.TAG_SIZE
    session, caller = core.sessions.session("gw-eu", made.session_id)
    assert caller.instance == session.keys.info.caller == "gw-eu"


def test_a_ticket_opens_one_session_once(core):
    """Also after its session was closed: the counters of a second one would begin again."""
    made = ticket(core)
    core.sessions.open(made)
    not_opened(core, made, Code.UNKNOWN_SESSION)
    for _ in range(INSTANCES.per_caller):
        core.sessions.open(ticket(core))
    with pytest.raises(KcmError):
        core.sessions.session("gw-eu", made.session_id)
    not_opened(core, made, Code.UNKNOWN_SESSION)


def test_a_ticket_is_for_one_incarnation_of_one_core(world, core):
    made = ticket(core)
    not_opened(world.core("core-eu-2"), made, Code.UNKNOWN_SESSION)
    not_opened(world.core(), made, Code.UNKNOWN_SESSION)


def test_who_offers_the_key_of_another_core_gains_nothing(world, core):
    """The ticket names the Core that it is for, and the other Core has another name."""
    other = world.core("core-eu-2")
    offered = key_of(core).model_copy(update={"instance": "core-eu-2"})
    not_opened(core, ticket(core, key=offered), Code.FORBIDDEN)
    not_opened(other, ticket(core, key=offered), Code.UNKNOWN_SESSION)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"caller": "gw-us"}, Code.FORBIDDEN),
        ({"caller": "core-eu-2"}, Code.FORBIDDEN),
        ({"caller": "admin"}, Code.FORBIDDEN),
        ({"caller": "stranger"}, Code.FORBIDDEN),
        ({"signer": "gw-us"}, Code.FORBIDDEN),
        ({"region": "us"}, Code.FORBIDDEN),
        ({"callee": "core-eu-2"}, Code.FORBIDDEN),
        ({"key_id": b"k" * 16}, Code.UNKNOWN_SESSION),
        ({"issued_ms": 10**12 + 60_000}, Code.UNKNOWN_SESSION),
        ({"expiry_ms": 1}, Code.UNKNOWN_SESSION),
        ({"expiry_ms": 2 * 10**12}, Code.UNKNOWN_SESSION),
    ],
    ids=[
        "of another region", "a Core", "an operator", "a stranger", "signed by another",
        "for another region", "for another Core", "for another key", "of the future", "ended",
        "too long",
    ],
)  # fmt: skip
def test_what_is_not_believed_opens_nothing(core, changes, code):
    not_opened(core, ticket(core, **changes), code)


@pytest.mark.parametrize(
    "field", ["incarnation", "session_id", "issued_ms", "expiry_ms", "ciphertext"]
)
def test_a_ticket_that_was_changed_in_any_field_is_refused(core, field):
    now = core.world.clock.unix_ms()
    made = ticket(core, expiry_ms=now + 1000)
    value = getattr(made, field)
    changed = value - 1 if isinstance(value, int) else value[:-1] + bytes([value[-1] ^ 1])
    not_opened(core, made.model_copy(update={field: changed}), Code.FORBIDDEN)


def test_a_signed_ticket_whose_ciphertext_opens_nothing_is_no_session(core):
    other = HpkePrivate(memoryview(bytearray(b"\x07" * SECRET_SIZE))).public_bytes
    made = ticket(core, key=key_of(core).model_copy(update={"public": other}))
    not_opened(core, made, Code.UNKNOWN_SESSION)


def test_a_session_ends_with_its_ticket_and_is_wiped(world, core):
    made = ticket(core)
    session = core.sessions.open(made)
    world.clock.now += TICKET_S
    with pytest.raises(KcmError) as info:
        core.sessions.session("gw-eu", made.session_id)
    assert info.value.code is Code.UNKNOWN_SESSION
    core.sessions.open(ticket(core))
    core.sessions.wipe_ended()  # as the Core does by time
    assert len(core.sessions) == 1
    assert wiped(session)


def test_one_caller_pushes_out_only_its_own_sessions(core):
    first = [ticket(core) for _ in range(INSTANCES.per_caller)]
    opened = [core.sessions.open(made) for made in first]
    core.sessions.session("gw-eu", first[0].session_id)
    core.sessions.used(opened[0])  # so the second is the oldest
    core.sessions.open(ticket(core))
    assert len(core.sessions) == INSTANCES.per_caller
    assert core.sessions.session("gw-eu", first[0].session_id)[0] is opened[0]
    assert wiped(opened[1])


def test_a_caller_with_too_many_tickets_has_to_wait(world, core, monkeypatch):
    monkeypatch.setattr(module, "INSTANCES", dataclasses.replace(INSTANCES, tickets=3))
    core = world.core("core-eu-2")
    for _ in range(3):
        core.sessions.open(ticket(core))
    not_opened(core, ticket(core), Code.BUSY)
    world.clock.now += CURRENT_S
    assert core.sessions.open(ticket(core)), "for the next key"


@pytest.mark.parametrize("step_s", [-600.0, -3600.0])
def test_no_step_of_the_wall_clock_opens_a_ticket_again(world, core, step_s, monkeypatch):
    made = ticket(core)
    session = core.sessions.open(made)
    world.clock.now += 601
    core.sessions.open(ticket(core))
    wall = world.clock.unix_ms
    monkeypatch.setattr(world.clock, "unix_ms", lambda: wall() + int(step_s * 1000))
    not_opened(core, made, Code.UNKNOWN_SESSION)
    assert not core.sessions.live(session)


def test_sessions_that_no_caller_uses_are_wiped_by_time(world, core):
    session = core.sessions.open(ticket(core))
    world.clock.now += TICKET_S
    core.sessions.wipe_ended()  # as the Core does by time
    assert len(core.sessions) == 0
    assert wiped(session)


def test_a_session_that_only_an_eavesdropper_names_is_not_kept_longer(core):
    first = [ticket(core) for _ in range(INSTANCES.per_caller)]
    opened = [core.sessions.open(made) for made in first]
    core.sessions.session("gw-eu", first[0].session_id)  # named, and not used
    core.sessions.open(ticket(core))
    assert wiped(opened[0])


def test_closing_wipes_every_session(core):
    session = core.sessions.open(ticket(core))
    core.sessions.close()
    assert wiped(session)


async def test_a_ticket_that_does_not_verify_is_recorded_without_an_actor_and_bounded(core):
    subject = data_subjects.core_session("eu", "core-eu", "open")
    for _ in range(3):
        made = encode(ticket(core, signer="gw-us"))
        assert await refused(core.sessions.handle(subject, made)) is Code.FORBIDDEN
    (event,) = [fields for kind, fields in core.events if kind == "trust.refused"]
    assert event["actor"] is None
    assert event["detail"].startswith("a caller's ticket: ")
    assert event["detail"].endswith(" (claimed name: gw-eu)")


@pytest.mark.parametrize("verb", ["close", "ticket", "unwrap"])
async def test_nothing_else_begins_a_session(core, verb):
    subject = data_subjects.core_session("eu", "core-eu", verb)
    assert await refused(core.sessions.handle(subject, b"")) is Code.MALFORMED


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x80", b"x" * 1000])
async def test_rubbish_opens_nothing(core, body):
    subject = data_subjects.core_session("eu", "core-eu", "open")
    assert await refused(core.sessions.handle(subject, body)) is Code.MALFORMED
