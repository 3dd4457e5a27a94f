"""Incarnations and receipts against liars: nobody speaks for another incarnation."""

import pytest
from kcm_killswitch.coordinator.hold_commands import HoldCommands
from kcm_killswitch.coordinator.hold_reach import HoldReach
from kcm_killswitch.coordinator.pull_answers import PAGE_BYTES, page_of
from kcm_killswitch.coordinator.region_sync import RegionSync
from kcm_killswitch.coordinator.result_store import ResultBucket
from kcm_killswitch.coordinator.results import Results
from kcm_killswitch.model.incarnations import GONE_S, INCARNATIONS_PER_INSTANCE_MAX, Incarnations
from kcm_killswitch.model.log_position import LogPosition
from kcm_killswitch.model.timing import Timing
from kcm_killswitch.replica.lease_keeper import BEFORE_EVERYTHING
from kcm_runtime.nats.ports import Entry
from kcm_runtime.nats.streams import ControlLog
from kcm_schemas import subjects
from kcm_schemas.codec import encode
from kcm_schemas.codes import KcmError
from kcm_schemas.control import Lease, Receipt
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind

from tests.fakes.bus import Bus, Message
from tests.security.switch_rig import Rig, acme, settle, signed
from tests.unit.trust_rig import VERIFIER, hold
from tests.vectors.families.messages import identity

# Incarnations on record


def lease(who, incarnation, *, first=0, ended=False, role=Role.GATEWAY):
    return Lease(
        instance=who,
        incarnation=incarnation,
        role=role,
        region="eu",
        nonce=bytes(16),
        first=first,
        lease_ms=10_000,
        holds=bytes(32),
        registry=[bytes(16)] * 16,
        roster=1,
        ended=ended,
    )


def put_lease(rig, one, signer=None, subject=None):
    where = subject or subjects.control_lease("eu", one.instance, one.incarnation)
    rig.deliver(where, encode(identity(signer or one.instance).sign(Kind.LEASE, one)))


def registered(rig):
    return {
        (incarnation.instance, incarnation.incarnation): incarnation
        for incarnation in rig.switch.registered.registered(rig.clock.now)
    }


VICTIM = b"victim-s" + b"v" * 8


async def test_nobody_ends_or_dates_the_incarnation_of_somebody_else():
    """core-eu-2 plays the insider: it signs its own name beside the incarnation of the Gateway."""
    rig = Rig()
    put_lease(rig, lease("gw-eu", VICTIM, first=5))
    put_lease(rig, lease("core-eu-2", VICTIM, ended=True, role=Role.CORE))
    put_lease(rig, lease("core-eu-2", VICTIM, first=1 << 40, role=Role.CORE))
    put_lease(
        rig,
        lease("core-eu-2", VICTIM, ended=True, role=Role.CORE),
        subject=subjects.control_lease("eu", "gw-eu", VICTIM),
    )
    put_lease(rig, lease("gw-eu", VICTIM, ended=True), signer="core-eu-2")
    assert registered(rig)["gw-eu", VICTIM].first == 5


def test_an_expiry_that_nobody_signed_removes_nobody():
    rig = Rig()
    put_lease(rig, lease("gw-eu", VICTIM, first=5))
    rig.deliver(subjects.control_lease("eu", "gw-eu", VICTIM), b"")
    assert ("gw-eu", VICTIM) in registered(rig)
    rig.clock.now += GONE_S
    assert registered(rig) == {}


def test_the_first_entry_of_an_incarnation_replayed_does_not_make_it_begin_later():
    rig = Rig()
    replayed = lease("gw-eu", VICTIM)
    put_lease(rig, replayed)
    put_lease(rig, lease("gw-eu", VICTIM, first=1))
    for _ in range(10):
        put_lease(rig, replayed)
    assert registered(rig)["gw-eu", VICTIM].first == 0  # unknown: never after a hold


def test_an_ended_incarnation_does_not_come_back_by_a_replay():
    rig = Rig()
    put_lease(rig, lease("gw-eu", VICTIM, first=1))
    put_lease(rig, lease("gw-eu", VICTIM, first=1, ended=True))
    put_lease(rig, lease("gw-eu", VICTIM, first=1))
    assert registered(rig) == {}


def test_an_instance_that_invents_incarnations_pushes_out_only_its_own():
    records = Incarnations()
    records.take(lease("gw-us", VICTIM), 1, 0.0)
    for number in range(5000):
        records.take(lease("gw-eu", number.to_bytes(16, "big")), number, 0.0)
    known = records.registered(0.0)
    assert len(known) == INCARNATIONS_PER_INSTANCE_MAX + 1
    assert any(incarnation.incarnation == VICTIM for incarnation in known)


async def test_an_incarnation_says_when_it_began_and_after_a_rollback_that_it_cannot_say():
    rig = Rig()
    stream = rig.region.stream
    subject = subjects.control_lease("eu", "core-eu", rig.me.incarnation)
    stream.sequence = 500
    await rig.switch.renew()
    await rig.switch.renew()
    assert VERIFIER.lease(stream.stored[subject][1]).first == 501
    stream.sequence = 20  # the broker's disk went back
    with pytest.raises(KcmError):
        await rig.switch.renew()
    await rig.switch.renew()
    assert VERIFIER.lease(stream.stored[subject][1]).first == BEFORE_EVERYTHING


# Receipts, pulls and scope


def regions(rig):
    return RegionSync(
        rig.host,
        rig.state,
        control_bus=rig.control,
        stream=ControlLog(rig.region, "eu", rig.clock),
        switch=rig.switch,
        timing=Timing(),
        result_of=results(rig).offer,
    )


def results(rig):
    return Results(
        rig.host,
        store=ResultBucket(Bus()),
        control_bus=rig.control,
        switch=rig.switch,
    )


def kills(rig):
    return HoldCommands(
        rig.host,
        rig.state,
        control_bus=rig.control,
        switch=rig.switch,
        regions=regions(rig),
        timing=Timing(),
        results=results(rig),
    )


def receipt(kill, who, incarnation, role=Role.GATEWAY, region="eu"):
    body = Receipt(
        hold_id=kill.id,
        instance=who,
        incarnation=incarnation,
        role=role,
        region=region,
        keys=0,
        purge_us=0,
        unkept="",
        reached=bytes(32),
    )
    raw = encode(identity(who).sign(Kind.RECEIPT, body))
    return Message(raw, subject=subjects.receipt(region, kill.id))


async def test_nobody_receipts_for_the_incarnation_of_somebody_else():
    rig, kill = Rig(), hold()
    watcher = kills(rig)
    await watcher.receipts.receive(receipt(kill, "gw-us", VICTIM, region="us"))
    await watcher.receipts.receive(receipt(kill, "gw-eu", VICTIM))
    watcher.receipts.read()
    assert set(watcher.receipts.of(kill.id)) == {("gw-us", VICTIM), ("gw-eu", VICTIM)}


async def test_receipts_for_invented_incarnations_do_not_pile_up():
    rig, kill = Rig(), hold()
    watcher = kills(rig)
    await watcher.receipts.receive(receipt(kill, "gw-eu", VICTIM))
    for number in range(100):
        await watcher.receipts.receive(
            receipt(kill, "gw-us", number.to_bytes(16, "big"), region="us")
        )
    watcher.receipts.read()
    assert len(watcher.receipts.of(kill.id)) == INCARNATIONS_PER_INSTANCE_MAX + 1
    assert ("gw-eu", VICTIM) in watcher.receipts.of(kill.id)


def test_a_kill_of_a_link_asks_every_region():
    """The link may open roots of tenants that this region has no record of."""
    rig = Rig()
    rig.revocations.register(acme(regions=["eu"]))
    reach = HoldReach(rig.host, rig.state, switch=rig.switch)
    assert reach.regions("tenant", "acme") == ["eu"]
    assert reach.regions("tenant", "nobody") == ["eu", "us"]
    assert reach.regions("link", "acme-root") == ["eu", "us"]


def test_pages_of_holds_fit_into_a_message():
    longest = [bytes([number % 256]) * 17_000 for number in range(200)]
    told = []
    while True:
        page, more = page_of(longest[len(told) :])
        assert sum(map(len, page)) <= PAGE_BYTES
        told += page
        if not more:
            break
    assert told == longest
    assert page_of([]) == ([], False)


async def test_incarnations_that_were_read_before_a_hold_was_durable_do_not_count():
    """An incarnation that began in between would be missing from them."""
    rig = Rig()
    one = hold()
    raw = signed(one)
    rig.switch.learn(raw)
    subject = subjects.control_hold("eu", "tenant", one.id)

    async def read_with(when, sequence):
        """The hold is delivered at ``sequence`` before or while the incarnations are read."""

        def deliver():
            rig.region.stream.stored[subject] = (sequence, raw)
            rig.switch.reader.receive(Entry(sequence, subject, raw))

        async def caught_up():
            if when == "while":
                deliver()
            return LogPosition(sequence + 1, b"n" * 16)

        if when == "before":
            deliver()
        rig.switch.reader.caught_up = caught_up
        return (await regions(rig).facts_here(one.id)).durable_at

    rig.region.stream.stored.clear()
    assert await read_with("while", 7) == 0
    assert await read_with("before", 7) == 7
    assert await read_with("while", 9) == 0
    await settle()
