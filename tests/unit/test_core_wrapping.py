"""Wrap and unwrap behind the sealed channel: every refusal, and nothing after a purge."""

import asyncio

import pytest
from kcm_core.providers.state import L1State
from kcm_gateway.core_client import Unwrapping
from kcm_keymem.random import SystemKeyRandomness
from kcm_killswitch.model.registry_objects import key_of
from kcm_schemas import data_subjects, limits, subjects
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import RETRYABLE, Code, KcmError
from kcm_schemas.registry import Service
from kcm_schemas.session import decode_sealed_reply
from kcm_schemas.signed import Kind
from kcm_schemas.vault import CoreRequest

from tests.unit.core_rig import BLOB, KEY, LINK, SERVICE, TENANT, URI, entry, is_request, signed
from tests.unit.refusals import refused

SUBJECT = data_subjects.core("eu", "core-eu", "unwrap", "acme", "crm")


@pytest.fixture
async def core(world):
    return await world.core().made()


def fresh(count=3):
    keys = bytearray(KEY * count)
    SystemKeyRandomness().fill(memoryview(keys))
    return memoryview(keys)


async def wrapped(core, count=3):
    keys = fresh(count)
    lease, blobs = await core.client().wrap("acme", "crm", "record", keys)
    return keys.tobytes(), lease, blobs


async def unwrap(core, blobs, *, version=1, client=None, service="crm", tenant="acme"):
    out = memoryview(bytearray(len(blobs) // BLOB * KEY))
    client = client or core.client()
    wanted = Unwrapping(tenant, service, "record", version, blobs)
    lease, bad = await client.unwrap(wanted, out)
    return lease, list(bad), out.tobytes()


class Wire:
    """Between a Gateway and a Core: keeps requests of sessions, and changes what a test says."""

    def __init__(self, core, change=None, subject=None):
        self.core = core
        self.change = change or (lambda request: request)
        self.subject = subject
        self.seen = []
        self.codes = []
        """The codes of the refusals without a seal."""

    async def __call__(self, subject, body, timeout_s):
        if not is_request(subject):
            return await self.core.answer(subject, body)
        request = self.change(decode(CoreRequest, body))
        self.seen.append((self.subject or subject, encode(request)))
        answer = await self.core.answer(*self.seen[-1])
        try:
            decode_sealed_reply(answer)
        except KcmError as error:
            self.codes.append(error.code)
        return answer


async def test_keys_come_back_through_any_core_with_the_lease_from_the_sending(world, core):
    keys, lease, blobs = await wrapped(core)
    assert lease.l3_version == 1
    assert lease.until == world.clock.now + 10
    other = world.core("core-eu-2")
    other.learn()
    again, bad, out = await unwrap(other, blobs)
    assert (bad, out, again.l3_version) == ([], keys, 1)


async def test_one_tampered_key_spoils_no_other(core):
    keys, _, blobs = await wrapped(core)
    changed = bytearray(blobs)
    changed[BLOB + 30] ^= 1
    _, bad, out = await unwrap(core, bytes(changed))
    assert bad == [1]
    assert out == keys[:KEY] + bytes(KEY) + keys[2 * KEY :]


@pytest.mark.parametrize(
    ("subject", "code"),
    [
        (data_subjects.core("eu", "core-eu", "wrap", "acme", "crm"), Code.MALFORMED),
        (data_subjects.core("eu", "core-eu", "unwrap", "acme", "hr"), Code.FORBIDDEN),
        (data_subjects.core("eu", "core-eu", "rewrap", "acme", "crm"), Code.MALFORMED),
        (data_subjects.core("eu", "core-eu", "unwrap", "bcme", "crm"), Code.FORBIDDEN),
    ],
    ids=["operation", "service", "no operation", "tenant"],
)
async def test_a_request_is_of_no_use_on_another_subject(core, subject, code):
    _, _, blobs = await wrapped(core)
    core.learn(Service(tenant="acme", service="hr", revision=1))
    await core.creator.service(Service(tenant="acme", service="hr", revision=1))
    wire = Wire(core, subject=subject)
    await refused(unwrap(core, blobs, client=core.client(ask=wire)))
    assert set(wire.codes) == {code}


CHANGES = {
    "version": {"l3_version": 2},
    "purpose": {"purpose": "stream"},
    "counter": {"counter": 77},
    "caller": {"caller": "gw-us"},
    "session": {"session_id": bytes(16)},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_what_travels_in_clear_is_bound(world, core, change):
    _, _, blobs = await wrapped(core)
    wire = Wire(core, lambda request: request.model_copy(update=change))
    assert await refused(unwrap(core, blobs, client=core.client(ask=wire))) in RETRYABLE
    assert set(wire.codes) <= {Code.FORBIDDEN, Code.UNKNOWN_SESSION}


async def test_a_later_deadline_and_another_count_are_not_accepted_either(core):
    _, _, blobs = await wrapped(core)

    def later(request):
        return request.model_copy(update={"deadline_ms": request.deadline_ms + 1})

    def fewer(request):
        return request.model_copy(update={"count": request.count - 1})

    def more(request):
        return request.model_copy(update={"count": request.count + 1})

    for change, code in (
        (later, Code.FORBIDDEN),
        (fewer, Code.FORBIDDEN),
        (more, Code.MALFORMED),
    ):
        wire = Wire(core, change)
        await refused(unwrap(core, blobs, client=core.client(ask=wire)))
        assert set(wire.codes) == {code}


async def test_a_request_is_refused_late_and_far_ahead(world, core):
    wire = Wire(core)
    _, _, blobs = await wrapped(core)
    await unwrap(core, blobs, client=core.client(ask=wire))
    world.clock.now += 2.0
    assert await refused(core.wrapping.handle(*wire.seen[0])) is Code.DEADLINE_EXCEEDED
    world.clock.now -= 2.0 + limits.DEADLINE_MAX_MS / 1000
    assert await refused(core.wrapping.handle(*wire.seen[0])) is Code.MALFORMED


async def test_who_has_no_grant_or_is_no_gateway_of_this_region_is_refused(core):
    _, _, blobs = await wrapped(core)
    assert await refused(unwrap(core, blobs, tenant="bcme")) is Code.FORBIDDEN
    known = len(core.sessions)
    for caller in ("gw-us", "core-eu-2"):
        client = core.client(caller)
        assert await refused(unwrap(core, blobs, client=client)) is Code.UNAVAILABLE
        assert len(core.sessions) == known, "no session was opened"


async def test_nobody_wraps_under_an_old_key_and_no_record_is_of_version_zero(core):
    _, _, blobs = await wrapped(core)
    assert await refused(unwrap(core, blobs, version=0)) is Code.KEY_DESTROYED
    assert await refused(unwrap(core, blobs, version=2)) is Code.KEY_DESTROYED
    wire = Wire(core, lambda request: request.model_copy(update={"l3_version": 1}))
    await refused(core.client(ask=wire).wrap("acme", "crm", "record", fresh()))
    assert set(wire.codes) == {Code.FORBIDDEN}, "the version is sealed"


async def test_a_key_of_zeros_is_not_wrapped(core):
    keys = memoryview(bytearray(2 * KEY))
    assert await refused(core.client().wrap("acme", "crm", "record", keys)) is Code.MALFORMED


async def test_killed_unavailable_and_unknown(world, core):
    _, _, blobs = await wrapped(core)
    core.kill()
    assert await refused(unwrap(core, blobs)) is Code.TENANT_KILLED
    core.lift()
    world.unsealer.key(URI).state = L1State.UNREACHABLE
    assert await refused(unwrap(core, blobs)) is Code.TENANT_UNAVAILABLE
    world.unsealer.key(URI).state = L1State.ENABLED
    assert (await unwrap(core, blobs))[1] == []
    core.learn(TENANT.model_copy(update={"revision": 2, "regions": ["us"]}))
    assert await refused(unwrap(core, blobs)) is Code.UNKNOWN_TENANT


@pytest.mark.parametrize("lifted", [False, True])
async def test_a_purge_while_the_service_key_is_read_lets_nothing_out(world, core, lifted):
    """Neither a kill nor a kill with its lift: the operation began in another generation."""
    _, _, blobs = await wrapped(core)
    core.vault.purge("acme")
    entered, gate = asyncio.Event(), asyncio.Event()

    async def slow(operation, subject):
        if "service" in subject:
            entered.set()
            await gate.wait()

    world.bus.stream.before = slow
    asking = asyncio.create_task(unwrap(core, blobs))
    await entered.wait()
    core.kill()
    if lifted:
        core.lift()
    gate.set()
    assert await refused(asking) is (Code.TENANT_UNAVAILABLE if lifted else Code.TENANT_KILLED)


@pytest.mark.parametrize("known", [(LINK,), (LINK, TENANT)], ids=["no tenant", "no service"])
async def test_what_another_core_accepted_a_moment_ago_is_looked_up(world, core, known):
    """A Core follows the registry; an application asks as soon as the other Core has answered."""
    plain, _, blobs = await wrapped(core)
    late = world.core("core-eu-2")
    late.learn(*known)
    with pytest.raises(KcmError, match="unknown_"):
        await unwrap(late, blobs)
    for kind, record in ((Kind.TENANT, TENANT), (Kind.SERVICE, SERVICE)):
        subject = subjects.bucket_subject(subjects.REGISTRY_BUCKET, *key_of(record))
        world.bus.stream.sequence += 1
        stored = entry(signed(kind, record))
        world.bus.stream.stored[subject] = (world.bus.stream.sequence, stored)
    assert (await unwrap(late, blobs))[2] == plain


async def test_a_request_that_nobody_sealed_asks_no_customers_key(world, core):
    """The name of a session travels in clear: an eavesdropper can send it with anything else."""
    _, _, blobs = await wrapped(core)
    wire = Wire(core)
    await unwrap(core, blobs, client=core.client(ask=wire))
    subject, body = wire.seen[0]
    request = decode(CoreRequest, body)
    changes = {"counter": 77, "sealed": bytes(len(request.sealed))}
    forged = encode(request.model_copy(update=changes))
    core.vault.purge("acme")
    asked = len(world.unsealer.calls)
    assert await refused(core.wrapping.handle(subject, forged)) is Code.FORBIDDEN
    assert len(world.unsealer.calls) == asked
    assert core.vault.open_tenants == []


def scattered(count, prefixes):
    """Blobs that open nowhere, of so many different nonce prefixes."""
    return b"".join(
        (n % prefixes).to_bytes(limits.PREFIX_SIZE, "big") + bytes(BLOB - limits.PREFIX_SIZE)
        for n in range(count)
    )


async def test_an_unwrap_of_too_many_prefixes_is_refused_before_any_key_is_asked(world, core):
    await wrapped(core)
    core.vault.purge("acme")
    asked = len(world.unsealer.calls)
    many = scattered(limits.PREFIXES_MAX + 1, limits.PREFIXES_MAX + 1)
    assert await refused(unwrap(core, many)) is Code.MALFORMED
    assert len(world.unsealer.calls) == asked
    assert core.vault.open_tenants == []
    await wrapped(core)
    assert await refused(unwrap(core, many)) is Code.MALFORMED
    assert core.events[-1][1]["code"] is Code.MALFORMED


async def test_a_request_may_bring_both_its_bounds_and_no_more_keys(core):
    keys, _, blobs = await wrapped(core, limits.KEYS_MAX)
    assert (await unwrap(core, blobs))[1:] == ([], keys)
    _, bad, out = await unwrap(core, scattered(limits.KEYS_MAX, limits.PREFIXES_MAX))
    assert bad == list(range(limits.KEYS_MAX))
    assert not any(out)
    with pytest.raises(ValueError, match="count"):
        CoreRequest.model_validate({"count": limits.KEYS_MAX + 1})


async def test_what_cannot_be_recorded_is_not_done(core):
    _, _, blobs = await wrapped(core)
    told = len(core.events)
    core.room.has_room = False
    assert await refused(unwrap(core, blobs)) is Code.UNAVAILABLE
    assert len(core.events) == told  # the reserve is for purges


async def test_everything_that_is_served_or_refused_to_a_caller_is_recorded(core):
    _, _, blobs = await wrapped(core, 2)
    await unwrap(core, bytes([blobs[0] ^ 1]) + blobs[1:])
    core.kill()
    await refused(unwrap(core, blobs))
    told = [(kind, f["code"], f["count"], f["failed"]) for kind, f in core.events[-3:]]
    assert told == [
        ("keys.wrap", Code.OK, 2, 0),
        ("keys.unwrap", Code.OK, 2, 1),
        ("keys.unwrap", Code.TENANT_KILLED, 2, 2),
    ]
    assert {f["actor"] for kind, f in core.events if kind.startswith("keys.")} == {"gw-eu"}


async def test_an_unknown_service(core):
    keys = fresh()
    assert await refused(core.client().wrap("acme", "hr", "record", keys)) is Code.UNKNOWN_SERVICE
    assert SERVICE.service == "crm"


def refusals(core):
    return [fields for kind, fields in core.events if kind == "trust.refused"]


async def test_what_a_gateway_may_not_ask_is_recorded_with_its_name_and_bounded(core):
    _, _, blobs = await wrapped(core)
    for _ in range(5):
        assert await refused(unwrap(core, blobs, tenant="bcme")) is Code.FORBIDDEN
    (first,) = refusals(core)
    assert (first["actor"], first["tenant"], first["count"]) == ("gw-eu", "bcme", 1)
    core.wrapping.close()
    assert refusals(core)[1] == first | {"count": 4, "code": Code.FORBIDDEN}


@pytest.mark.parametrize("tenant", ["acme", "bcme"], ids=["granted", "not granted"])
@pytest.mark.parametrize("killed", [False, True])
async def test_nothing_is_recorded_in_the_name_of_who_did_not_seal_it(world, core, tenant, killed):
    """Whoever reads the name of a session must not make events of its Gateway."""
    _, _, blobs = await wrapped(core)
    wire = Wire(core)
    await unwrap(core, blobs, client=core.client(ask=wire))
    request = decode(CoreRequest, wire.seen[0][1])
    if killed:
        core.kill()
    core.events.clear()
    changes = {"counter": 77, "sealed": bytes(len(request.sealed))}
    forged = encode(request.model_copy(update=changes))
    subject = data_subjects.core("eu", "core-eu", "unwrap", tenant, "crm")
    with pytest.raises(KcmError):
        await core.wrapping.handle(subject, forged)
    assert [kind for kind, _ in core.events if kind.startswith("keys.")] == []
    assert all(fields["actor"] is None for fields in refusals(core))
    assert refusals(core)
