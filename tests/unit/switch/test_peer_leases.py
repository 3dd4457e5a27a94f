"""Peer leases and attestations in the stream: which of them an incarnation believes."""

import asyncio

import pytest
from kcm_killswitch.model.log_position import NOWHERE
from kcm_runtime.nats.ports import Entry
from kcm_schemas import subjects
from kcm_schemas.control import KeyUseAttestation, PeerLease
from kcm_schemas.l1 import L1State
from kcm_schemas.signed import Kind

from tests.fakes.virtual import let_pass, settled, until
from tests.unit.switch.statements import held, hold, signed

# Peer leases and attestations


async def with_mark(system, name="gw-eu-1"):
    incarnation = system.incarnation(name)
    await incarnation.start()
    return incarnation, await incarnation.switch.caught_up()


def peer_lease(mark, region="eu", other="us", highest=NOWHERE, roster=1):
    return PeerLease(
        region=region,
        other=other,
        position=mark.sequence,
        nonce=mark.nonce,
        stored=highest.sequence,
        hold=highest.nonce,
        roster=roster,
    )


def peer_lease_entry(incarnation, statement, signer):
    subject = subjects.control_peer_lease("eu", statement.other)
    return incarnation.stream.store(subject, signed(Kind.PEER_LEASE, statement, signer))


async def test_a_peer_lease_of_a_core_of_the_region_is_believed(system):
    incarnation, mark = await with_mark(system)
    heard = []
    incarnation.switch.listen(heard.append, heard.append)
    peer_lease_entry(incarnation, peer_lease(mark), "core-eu-1")
    await settled()
    assert incarnation.freshness.knows("us")
    assert heard == [peer_lease(mark)]


@pytest.mark.parametrize(
    ("signer", "region"),
    [("gw-eu-1", "eu"), ("core-us-1", "eu"), ("core-us-1", "us"), ("security", "eu")],
    ids=["a gateway", "a core of another region", "another region's peer lease", "an operator"],
)
async def test_a_peer_lease_that_nobody_may_sign_is_ignored(system, signer, region):
    incarnation, mark = await with_mark(system)
    peer_lease_entry(
        incarnation, peer_lease(mark, region, "us" if region == "eu" else "ap"), signer
    )
    await settled()
    assert not incarnation.freshness.knows("us")
    assert not incarnation.freshness.knows("ap")
    assert incarnation.count("trust.refused") == 1


async def test_a_peer_lease_of_a_region_with_a_higher_roster_is_not_believed(system):
    """What holds there may be lifted by the roster that counts here."""
    incarnation, mark = await with_mark(system)
    peer_lease_entry(
        incarnation, peer_lease(mark, roster=incarnation.me.rosters.version + 1), "core-eu-1"
    )
    await settled()
    assert not incarnation.freshness.knows("us")
    assert incarnation.count("trust.refused") == 0


async def test_a_peer_lease_with_a_log_position_of_another_history_does_not_count(system):
    incarnation, mark = await with_mark(system)
    stranger = type(mark)(mark.sequence, b"n" * 16)
    peer_lease_entry(incarnation, peer_lease(stranger), "core-eu-1")
    await settled()
    assert not incarnation.freshness.knows("us")


async def test_a_peer_lease_from_before_a_rollback_that_arrives_late_does_not_count(system):
    incarnation, mark = await with_mark(system)
    incarnation.stream.recreate()
    for number in range(mark.sequence):
        incarnation.stream.store(f"kcm.v1.eu.control.lease.filler.{number:032x}", b"filler")
    await until(incarnation.live)
    await until(lambda: incarnation.follower.position > mark.sequence)
    peer_lease_entry(incarnation, peer_lease(mark), "core-eu-1")
    await settled()
    assert not incarnation.freshness.knows("us")


async def test_a_peer_lease_that_is_repeated_does_not_put_off_the_next_question(system):
    """A consumer that is made anew again and again delivers the same peer lease every time."""
    core = system.core("core-eu-1")
    other = system.core("core-us-1")
    await other.start(watch=False)
    await core.start(watch=False)
    await until(lambda: core.freshness.knows("us"))
    subject = subjects.control_peer_lease("eu", "us")
    old = core.stream.entries[subject].data
    asked = []
    system.wire.loses = lambda sender, _, about: bool(
        asked.append(sender)
        if sender == "core-eu-1" and about == subjects.pull("us", "eu")
        else None
    )
    for _ in range(20):
        core.switch.reader.receive(Entry(core.follower.position, subject, old))
        await let_pass(1)
    assert len(asked) >= 5


def attestation(mark, state=L1State.ENABLED, region="eu"):
    return KeyUseAttestation(
        region=region, link="acme-root", link_revision=1, key_version="0", principal="fake",
        state=state, position=mark.sequence, nonce=mark.nonce,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("signer", "region"),
    [("gw-eu-1", "eu"), ("core-us-1", "eu"), ("core-us-1", "us")],
)
async def test_an_attestation_that_nobody_may_sign_is_ignored(system, signer, region):
    core = system.core("core-eu-1")
    await core.start(regions=False)
    mark = await core.switch.caught_up()
    raw = signed(Kind.KEY_USE, attestation(mark, region=region), signer)
    core.stream.store(subjects.control_key_use("eu", "acme-root", bytes(32)), raw)
    await settled()
    assert len(core.freshness.attestations) == 0
    assert core.count("trust.refused") == 1


async def test_waiting_for_other_regions_ends_when_they_are_heard_retired_or_too_slow(system):
    incarnation, mark = await with_mark(system)
    waiting = asyncio.create_task(incarnation.switch.heard_regions(1_000))
    peer_lease_entry(incarnation, peer_lease(mark), "core-eu-1")
    await let_pass(1)
    assert not waiting.done()
    incarnation.switch.learn(held(hold(scope="region", target="ap")))
    await asyncio.wait_for(waiting, 1)
    system.streams["eu"].recreate()
    await until(lambda: not incarnation.freshness.knows("us"))
    await asyncio.wait_for(incarnation.switch.heard_regions(0.5), 2)
