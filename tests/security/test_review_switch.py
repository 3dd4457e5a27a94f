"""The kill switch against insiders, liars and faults: no purge is skipped, no kill looks complete.

Everything here is the production code over a stream in memory that does what a test says.
"""

import asyncio

import pytest
from kcm_keymem.random import SystemKeyRandomness
from kcm_killswitch.coordinator.hold_commands import HoldCommands
from kcm_killswitch.coordinator.hold_reach import HoldReach
from kcm_killswitch.coordinator.pull_answers import PAGE_BYTES, page_of
from kcm_killswitch.coordinator.region_sync import RegionSync
from kcm_killswitch.coordinator.result_store import ResultBucket
from kcm_killswitch.coordinator.results import Results
from kcm_killswitch.model.incarnations import GONE_S, INCARNATIONS_PER_INSTANCE_MAX, Incarnations
from kcm_killswitch.model.log_position import LogPosition
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.model.timing import Timing
from kcm_killswitch.replica.hold_store import NullHoldStore
from kcm_killswitch.replica.killswitch import KillSwitch
from kcm_killswitch.replica.lease_keeper import BEFORE_EVERYTHING
from kcm_runtime.host import Host
from kcm_runtime.instance import InstanceContext
from kcm_runtime.nats.ports import Entry
from kcm_runtime.nats.streams import ControlLog
from kcm_runtime.roster.store import Rosters
from kcm_schemas import subjects
from kcm_schemas.codec import encode
from kcm_schemas.codes import KcmError
from kcm_schemas.control import Lease, Receipt
from kcm_schemas.registry import Link, Tenant
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind

from tests.fakes.bus import Bus, Clock, Message
from tests.unit.trust_rig import VERIFIER, hold, lift
from tests.vectors.families.messages import identity


class Rig:
    """An incarnation's kill switch, with what it purged and published."""

    def __init__(self, name="core-eu", purge=None):
        self.purged = []
        self.clock = Clock()
        self.region, self.control = Bus(), Bus()
        self.state = ReplicaState.empty("eu", Timing())
        self.registry, self.revocations = self.state.registry, self.state.revocations
        self.events = []
        self.me = InstanceContext(
            identity(name), VERIFIER.instance(name), Rosters(VERIFIER), b"boot-of-" + b"m" * 8
        )
        self.host = Host(self.me, self.clock, SystemKeyRandomness(), self.emit, lambda: 0.5)
        self.switch = KillSwitch(
            self.host,
            self.state,
            stream=ControlLog(self.region, "eu", self.clock),
            hold_store=NullHoldStore(),
            control_bus=self.control,
            purge=purge or self._purge,
        )

    def emit(self, kind, **fields):
        self.events.append((kind, fields))

    def _purge(self, tenant):
        self.purged.append(tenant)
        return 1

    def receipts(self):
        return [
            VERIFIER.receipt(body) for subject, body in self.control.sent if "receipt" in subject
        ]

    def stored(self, one):
        subject = subjects.control_hold("eu", one.scope, one.id)
        return self.region.stream.stored.get(subject, (0, b""))

    def deliver(self, subject, data, sequence=None):
        self.region.stream.sequence += 1
        at = sequence or self.region.stream.sequence
        self.region.stream.stored[subject] = (at, data)
        self.switch.reader.receive(Entry(at, subject, data))


async def settle():
    for _ in range(50):
        await asyncio.sleep(0)


async def until(condition):
    """Wait for what a Core does after it stood back."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the code under test has no event for it
            await asyncio.sleep(0.001)


def signed(one, signer="security"):
    return encode(identity(signer).sign(Kind.HOLD, one))


def acme(revision=1, **changes):
    fields = {"link": "acme-root", "regions": ["eu", "us"], "region_quorum": "all"} | changes
    return Tenant(tenant="acme", revision=revision, **fields)


# Purging


async def test_a_fault_with_one_tenant_spares_no_other_and_gives_no_receipt():
    """A receipt says that nothing is left. It must not be sent while something may be."""
    broken = {"b"}
    purged = []

    def purge(tenant):
        if tenant in broken:
            raise RuntimeError("a fault")
        purged.append(tenant)
        return 1

    rig = Rig(purge=purge)
    for name in ("a", "b", "c"):
        rig.revocations.register(
            Tenant(tenant=name, revision=1, link="l", regions=["eu"], region_quorum="all")
        )
    kill = hold(scope="link", target="l")
    await rig.switch.broadcasts.receive(Message(signed(kill)))
    await settle()
    assert purged == ["a", "c"]
    assert rig.receipts() == []
    assert all(rig.revocations.killed(name) for name in "abc")
    # It is tried again whenever the hold is heard again.
    broken.clear()
    await rig.switch.broadcasts.receive(Message(signed(kill)))
    await settle()
    assert purged == ["a", "c", "b"]
    assert [one.hold_id for one in rig.receipts()] == [kill.id]


async def test_the_purge_is_done_before_the_callback_waits_for_anything():
    rig = Rig()
    coroutine = rig.switch.broadcasts.receive(Message(signed(hold())))
    with pytest.raises(StopIteration):
        coroutine.send(None)  # it ends without having waited once
    assert rig.purged == ["acme"]
    await settle()


async def test_a_question_asked_a_thousand_times_at_once_has_one_answer():
    rig = Rig("gw-eu")
    for _ in range(1000):
        await rig.switch.broadcasts.receive(Message(signed(hold())))
    assert rig.switch.unsent == 1
    await settle()
    assert len(rig.receipts()) == 1


async def test_a_tenant_whose_record_changed_is_purged():
    rig = Rig()
    assert rig.revocations.register(acme()).purge == ()
    assert rig.revocations.register(acme(2, regions=["us"])).purge == ("acme",)
    assert rig.revocations.register(acme(3, regions=["us"], link="other")).purge == ("acme",)
    assert rig.revocations.register(acme(2)).purge == ()
    assert rig.revocations.register(Link(link="other", revision=1, uri="", model="byok")).purge == (
        "acme",
    )


# The region's stream


async def test_a_hold_that_is_overwritten_is_written_again():
    """An incarnation that starts later learns from the stream; so nothing else may stay there."""
    rig, kill = Rig(), hold()
    rig.switch.learn(signed(kill))
    await until(lambda: rig.stored(kill)[1] == signed(kill))
    subject = subjects.control_hold("eu", "tenant", kill.id)
    first = rig.stored(kill)
    assert first[1] == signed(kill)
    other = hold(target="another")
    for rubbish in (b"", b"\xff" * 40, signed(kill, "stranger"), signed(other)):
        rig.deliver(subject, rubbish)
        assert rig.switch.durable_at(kill.id) == 0
        await until(lambda: rig.switch.durable_at(kill.id))
        assert rig.stored(kill)[1] == signed(kill)
        assert rig.switch.durable_at(kill.id) == rig.stored(kill)[0]


async def test_a_stream_that_went_back_gets_every_hold_again():
    rig, kills_ = Rig(), [hold(target=f"t{n}") for n in range(5)]
    for kill in kills_:
        rig.switch.learn(signed(kill))
    await until(lambda: rig.switch.all_durable)
    rig.region.stream.stored.clear()
    rig.region.stream.sequence = 0
    rig.switch.went_back()
    rig.switch.resumed(0)
    assert all(rig.switch.durable_at(kill.id) == 0 for kill in kills_)
    await until(lambda: rig.switch.all_durable)
    assert {rig.stored(kill)[1] for kill in kills_} == {signed(kill) for kill in kills_}


async def test_a_hold_in_the_place_of_another_is_not_durable_there():
    rig, kill, other = Rig("gw-eu"), hold(), hold(target="another")
    rig.deliver(subjects.control_hold("eu", "tenant", other.id), signed(kill))
    assert rig.purged == ["acme"]  # it is a valid hold all the same
    assert rig.switch.durable_at(kill.id) == 0
    await settle()


async def test_a_gateway_writes_no_holds():
    rig, kill = Rig("gw-eu"), hold()
    rig.switch.learn(encode(identity("security").sign(Kind.LIFT, lift(kill, "security"))))
    rig.deliver(subjects.control_hold("eu", "tenant", kill.id), signed(kill))
    await settle()
    assert rig.stored(kill)[1] == signed(kill)
    assert not rig.revocations.killed("acme")


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


def on_record(rig):
    return {
        (incarnation.instance, incarnation.incarnation): incarnation
        for incarnation in rig.switch.registered.on_record(rig.clock.now)
    }


VICTIM = b"boot-of-" + b"v" * 8


async def test_nobody_ends_or_dates_the_boot_of_somebody_else():
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
    assert on_record(rig)["gw-eu", VICTIM].first == 5


def test_an_expiry_that_nobody_signed_removes_nobody():
    rig = Rig()
    put_lease(rig, lease("gw-eu", VICTIM, first=5))
    rig.deliver(subjects.control_lease("eu", "gw-eu", VICTIM), b"")
    assert ("gw-eu", VICTIM) in on_record(rig)
    rig.clock.now += GONE_S
    assert on_record(rig) == {}


def test_the_first_record_of_a_boot_replayed_does_not_make_it_begin_later():
    rig = Rig()
    replayed = lease("gw-eu", VICTIM)
    put_lease(rig, replayed)
    put_lease(rig, lease("gw-eu", VICTIM, first=1))
    for _ in range(10):
        put_lease(rig, replayed)
    assert on_record(rig)["gw-eu", VICTIM].first == 0  # unknown: never after a hold


def test_an_ended_boot_does_not_come_back_by_a_replay():
    rig = Rig()
    put_lease(rig, lease("gw-eu", VICTIM, first=1))
    put_lease(rig, lease("gw-eu", VICTIM, first=1, ended=True))
    put_lease(rig, lease("gw-eu", VICTIM, first=1))
    assert on_record(rig) == {}


def test_an_instance_that_invents_boots_pushes_out_only_its_own():
    records = Incarnations()
    records.take(lease("gw-us", VICTIM), 1, 0.0)
    for number in range(5000):
        records.take(lease("gw-eu", number.to_bytes(16, "big")), number, 0.0)
    known = records.on_record(0.0)
    assert len(known) == INCARNATIONS_PER_INSTANCE_MAX + 1
    assert any(incarnation.incarnation == VICTIM for incarnation in known)


async def test_a_boot_says_when_it_began_and_after_a_rollback_that_it_cannot_say():
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


async def test_nobody_receipts_for_the_boot_of_somebody_else():
    rig, kill = Rig(), hold()
    watcher = kills(rig)
    await watcher.receipts._on_receipt(receipt(kill, "gw-us", VICTIM, region="us"))
    await watcher.receipts._on_receipt(receipt(kill, "gw-eu", VICTIM))
    watcher.receipts.read()
    assert set(watcher.receipts._arrivals[kill.id]) == {("gw-us", VICTIM), ("gw-eu", VICTIM)}


async def test_receipts_for_invented_boots_do_not_pile_up():
    rig, kill = Rig(), hold()
    watcher = kills(rig)
    await watcher.receipts._on_receipt(receipt(kill, "gw-eu", VICTIM))
    for number in range(100):
        await watcher.receipts._on_receipt(
            receipt(kill, "gw-us", number.to_bytes(16, "big"), region="us")
        )
    watcher.receipts.read()
    assert len(watcher.receipts._arrivals[kill.id]) == INCARNATIONS_PER_INSTANCE_MAX + 1
    assert ("gw-eu", VICTIM) in watcher.receipts._arrivals[kill.id]


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


async def test_boots_that_were_read_before_a_hold_was_durable_do_not_count():
    """An incarnation that began in between would be missing from them."""
    rig = Rig()
    kill = rig.switch.learn(signed(hold()))
    subject = subjects.control_hold("eu", "tenant", kill.hold.id)

    async def read_with(when, sequence):
        """The hold is delivered at ``sequence`` before or while the incarnations are read."""

        def deliver():
            rig.region.stream.stored[subject] = (sequence, kill.message)
            rig.switch.reader.receive(Entry(sequence, subject, kill.message))

        async def caught_up():
            if when == "while":
                deliver()
            return LogPosition(sequence + 1, b"n" * 16)

        if when == "before":
            deliver()
        rig.switch.caught_up = caught_up
        return (await regions(rig).facts_here(kill.hold.id)).durable_at

    rig.region.stream.stored.clear()
    assert await read_with("while", 7) == 0
    assert await read_with("before", 7) == 7
    assert await read_with("while", 9) == 0
    await settle()
