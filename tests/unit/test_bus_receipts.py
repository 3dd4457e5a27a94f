"""Receipts are read when a caller asks for them, and bounded until then."""

from __future__ import annotations

import pytest
from kcm_killswitch.coordinator.hold_commands import HoldCommands
from kcm_killswitch.coordinator.receipt_collector import UNREAD_MAX
from kcm_killswitch.coordinator.result_store import ResultBucket
from kcm_killswitch.coordinator.results import Results
from kcm_killswitch.model.completeness import RegionFacts
from kcm_killswitch.model.timing import Timing
from kcm_schemas import subjects
from kcm_schemas.codec import encode
from kcm_schemas.control import Incarnation, Receipt
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind

from tests.fakes.bus import Bus, Message
from tests.unit.rush_rig import HELD, HOLD, Counting, Switch, with_tenant
from tests.unit.trust_rig import roster
from tests.vectors.families.messages import identity


@pytest.fixture
def state():
    return with_tenant()


@pytest.fixture
def verifier():
    return Counting(roster())


@pytest.fixture
def switch(state, verifier):
    return Switch(state, verifier)


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
        assert kills.receipts.unread <= UNREAD_MAX
    assert [one.receipt.instance for one in kills.receipts.of(HOLD.id).values()] == ["gw-eu"]
