"""What a kill makes everybody do at once is as little as can be, and in the right order."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from kcm_keymem.random import SystemKeyRandomness
from kcm_killswitch.coordinator.hold_commands import HoldCommands
from kcm_killswitch.coordinator.receipt_collector import UNREAD_MAX
from kcm_killswitch.coordinator.result_store import ResultBucket
from kcm_killswitch.coordinator.results import Results
from kcm_killswitch.model.completeness import RegionFacts
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.model.timing import Timing
from kcm_killswitch.replica.hold_applier import HoldApplier
from kcm_killswitch.replica.hold_store import NullHoldStore
from kcm_killswitch.replica.killswitch import KillSwitch
from kcm_runtime.host import Host
from kcm_runtime.instance import InstanceContext
from kcm_runtime.nats.ports import Entry, Leading
from kcm_runtime.roster.store import Rosters
from kcm_schemas import subjects
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import Incarnation, Receipt
from kcm_schemas.registry import Tenant
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind
from kcm_trust.verify import Untrusted, Verifier

from tests.fakes.bus import Bus, Clock, Message
from tests.unit.trust_rig import VERIFIER, hold, lift, roster
from tests.vectors.families.messages import identity

HOLD = hold()
HELD = encode(identity("security").sign(Kind.HOLD, HOLD))
LIFTED = encode(identity("security").sign(Kind.LIFT, lift(HOLD, "security")))
PLACE = subjects.control_hold("eu", "tenant", HOLD.id)


class Counting(Verifier):
    """Says how often a hold was verified."""

    asked = 0

    def hold_or_lift(self, raw):
        self.asked += 1
        return super().hold_or_lift(raw)


class Log:
    """``kcm_runtime.nats.ports.Log`` in memory; nobody is delivered anything."""

    def __init__(self):
        self.stored = {}
        self.reads = 0
        self.sequence = 0

    async def put(self, subject, body, *, expected=None, ttl=None):
        at = self.stored.get(subject)
        if expected is not None and expected != (at.sequence if at else 0):
            raise KcmError(Code.CONFLICT)
        self.sequence += 1
        self.stored[subject] = Entry(self.sequence, subject, body)
        return self.sequence

    async def move(self):
        pass

    async def last(self, subject):
        self.reads += 1
        return self.stored.get(subject)

    async def leading(self):
        return Leading("one", len(self.stored))

    def follow(self, follower):
        return None


@dataclass
class Messages:
    """``kcm_runtime.nats.ports.Messages`` that keeps what was sent and who listens."""

    sent: list = field(default_factory=list)
    heard: dict = field(default_factory=dict)

    async def subscribe(self, subject, callback, queue=""):
        self.heard[subject] = callback

    async def publish(self, subject, body, reply=""):
        self.sent.append((subject, body))

    async def move(self):
        pass

    async def flush(self):
        pass


def member(verifier=VERIFIER, name="core-eu"):
    return InstanceContext(identity(name), verifier.instance(name), Rosters(verifier), b"b" * 16)


def host(verifier, clock=None, emit=lambda kind, **fields: None):
    return Host(member(verifier), clock or Clock(), SystemKeyRandomness(), emit)


@pytest.fixture
def state():
    made = ReplicaState.empty("eu", Timing())
    made.registry.put(
        Tenant(tenant="acme", revision=1, link="l", regions=["eu"], region_quorum="local")
    )
    return made


@pytest.fixture
def verifier():
    return Counting(roster())


class Switch:
    """A Core's kill switch, with what happened in order."""

    def __init__(self, state, verifier):
        self.log, self.bus, self.events = Log(), Messages(), []
        self.clock = Clock()
        self.host = host(verifier, self.clock, lambda kind, **fields: self.events.append(kind))
        self.state = state
        self.made = KillSwitch(
            self.host,
            self.state,
            stream=self.log,
            hold_store=NullHoldStore(),
            control_bus=self.bus,
            purge=lambda tenant: self.events.append("purge") or 1,
        )

    def receipts(self):
        return [body for subject, body in self.bus.sent if ".receipt." in subject]

    async def hear(self, raw=HELD):
        await self.made.broadcasts.receive(Message(raw))

    def read(self, raw=HELD, at=1):
        self.made.reader.receive(Entry(at, PLACE, raw))

    async def settled(self):
        while self.made.unsent:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)


@pytest.fixture
def switch(state, verifier):
    return Switch(state, verifier)


def learning(state, verifier, changed=lambda _: None):
    return HoldApplier(host(verifier), state, purge=lambda _: 1, changed=changed)


def test_a_statement_is_verified_once_however_often_it_comes(state, verifier):
    learns = learning(state, verifier)
    first = learns.learn(HELD)
    assert learns.learn(HELD) == first
    assert learns.learn(bytes(bytearray(HELD))) == first
    assert verifier.asked == 1


def test_a_hold_that_is_told_again_purges_whom_it_reaches_by_now_while_it_is_in_force(
    state, verifier
):
    """And no operation that began before has an output: each purge begins a generation."""
    revocations, purged = state.revocations, []
    learns = HoldApplier(
        host(verifier),
        state,
        purge=lambda name: purged.append(name) or 1,
        changed=lambda _: None,
    )
    learns.learn(HELD)
    for revision, statement, expected in ((2, HELD, ["acme"]), (3, LIFTED, []), (4, HELD, [])):
        tenant = Tenant(
            tenant="acme", revision=revision, link="m", regions=["eu"], region_quorum="local"
        )
        revocations.register(tenant)
        purged.clear()
        before = revocations.generation("acme")
        learns.learn(statement)
        assert purged == expected
        assert revocations.generation("acme") == before + len(expected)


def test_a_statement_that_differs_in_a_bit_is_verified_and_not_believed(state, verifier):
    learns = learning(state, verifier)
    learns.learn(HELD)
    forged = bytearray(HELD)
    forged[-1] ^= 1
    with pytest.raises(Untrusted):
        learns.learn(bytes(forged))
    assert verifier.asked == 2


def test_of_every_hold_one_statement_is_remembered(state, verifier):
    learns = learning(state, verifier)
    for raw in (HELD, LIFTED, HELD, LIFTED):
        record = learns.learn(raw)
    assert record.lifted
    assert learns.believes(LIFTED)
    assert not learns.believes(HELD)


def test_the_receipt_is_there_when_others_are_told_of_the_change(state, verifier):
    found = []
    learns = learning(state, verifier, lambda one: found.append(learns.receipt(one)))
    learns.learn(HELD)
    assert found[0].hold_id == HOLD.id


async def test_the_receipt_goes_before_anything_is_stored(switch):
    before = []

    async def publish(subject, body, reply=""):
        before.append((subject, switch.log.reads, dict(switch.log.stored)))

    switch.bus.publish = publish
    await switch.hear()
    await switch.settled()
    assert before == [(subjects.receipt("eu", HOLD.id), 0, {})]
    assert switch.events[0] == "purge"
    assert switch.log.stored[PLACE].data == HELD


async def test_a_hold_that_the_stream_has_by_then_is_not_written_again(switch):
    await switch.hear()
    switch.read(at=7)
    await switch.settled()
    assert switch.log.reads == 0
    assert switch.log.stored == {}
    assert switch.made.durable_at(HOLD.id) == 7


async def test_the_stream_asks_for_no_second_receipt_but_a_broadcast_does(switch):
    await switch.hear()
    await switch.settled()
    switch.read()
    await switch.settled()
    assert len(switch.receipts()) == 1
    await switch.hear()
    await switch.settled()
    assert len(switch.receipts()) == 2


async def test_who_learns_from_the_stream_alone_sends_a_receipt(switch):
    switch.read()
    await switch.settled()
    assert len(switch.receipts()) == 1


async def test_a_receipt_that_could_not_be_sent_is_sent_when_the_stream_has_the_hold(switch):
    async def fail(subject, body, reply=""):
        raise KcmError(Code.UNAVAILABLE)

    working, switch.bus.publish = switch.bus.publish, fail
    await switch.hear()
    await switch.settled()
    switch.bus.publish = working
    switch.read()
    await switch.settled()
    assert len(switch.receipts()) == 1


class RegionSync:
    """What every region says: one incarnation, and the hold stored."""

    async def facts_here(self, hold_id):
        incarnation = Incarnation(
            instance="gw-eu",
            incarnation=b"g" * 16,
            role=Role.GATEWAY,
            first=1,
            latest=2,
            lease_ms=1,
            silent_ms=0,
            quiet_ms=0,
            roster=1,
        )
        return RegionFacts(5, [incarnation])


def receipt(raw_incarnation=b"g" * 16, unkept="", reached=None):
    body = Receipt(
        reached=REACHED if reached is None else reached,
        hold_id=HOLD.id,
        instance="gw-eu",
        incarnation=raw_incarnation,
        role=Role.GATEWAY,
        region="eu",
        keys=1,
        purge_us=2,
        unkept=unkept,
    )
    return encode(identity("gw-eu").sign(Kind.RECEIPT, body))


HERE = subjects.receipt("eu", HOLD.id)
REACHED = bytes(32)


@pytest.fixture
async def kills(switch):
    made = HoldCommands(
        switch.host,
        switch.state,
        control_bus=switch.bus,
        switch=switch.made,
        regions=RegionSync(),
        timing=Timing(),
        results=Results(
            switch.host,
            store=ResultBucket(Bus()),
            control_bus=switch.bus,
            switch=switch.made,
        ),
    )
    await made.start()
    return made


async def test_a_receipt_counts_as_soon_as_somebody_asks(kills, switch):
    switch.made.learn(HELD)
    arrived = switch.bus.heard[subjects.receipts()]
    for raw in (b"forged", receipt(), receipt()):
        await arrived(Message(raw, subject=HERE))
    (incarnation,) = (await kills.status(HOLD.id)).incarnations
    assert (incarnation.how, incarnation.after_ms) == ("receipt", 0)


async def test_a_receipt_counts_once_the_hold_is_on_disk_and_from_then_on(kills, switch):
    switch.made.learn(HELD)
    arrived = switch.bus.heard[subjects.receipts()]
    seen = []
    for unkept in ("pending", "disk full", "", "disk full"):
        await arrived(Message(receipt(unkept=unkept), subject=HERE))
        (incarnation,) = (await kills.status(HOLD.id)).incarnations
        seen.append((incarnation.how, incarnation.trouble))
    assert seen == [("waiting", ""), ("waiting", "disk full"), ("receipt", ""), ("receipt", "")]


async def test_a_receipt_that_came_before_its_hold_did_not_come_in_the_past(kills, switch):
    switch.made.learn(HELD)
    await switch.bus.heard[subjects.receipts()](Message(receipt(), subject=HERE))
    switch.clock.now += 1.0
    kills.receipts.placed(HOLD.id)
    (incarnation,) = (await kills.status(HOLD.id)).incarnations
    assert (incarnation.how, incarnation.after_ms) == ("receipt", 0)


async def test_receipts_that_wait_to_be_read_are_bounded(kills, switch):
    arrived = switch.bus.heard[subjects.receipts()]
    await arrived(Message(receipt(), subject=HERE))
    for number in range(3 * UNREAD_MAX):
        await arrived(Message(b"forged %d" % number, subject=HERE))
        assert len(kills.receipts._unread) <= UNREAD_MAX
    assert [one.receipt.instance for one in kills.receipts._arrivals[HOLD.id].values()] == ["gw-eu"]
