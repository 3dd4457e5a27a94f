"""When a Core says that a kill is complete: never while somebody may serve, and not much later."""

import asyncio

import pytest
from kcm_killswitch.model.log_position import NOWHERE, LogPosition
from kcm_schemas import subjects
from kcm_schemas.control import Lease, PeerLease
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind

from tests.fakes.virtual import let_pass, settled, until
from tests.unit.switch.rig import watched
from tests.unit.switch.statements import LINK, held, hold, signed, tenant


def lease_subject(incarnation):
    return subjects.control_lease(
        incarnation.region, incarnation.me.name, incarnation.me.incarnation
    )


def records(incarnation):
    """The lease entries of an incarnation, as they were stored."""
    return [
        one
        for one in incarnation.stream.history
        if one.subject == lease_subject(incarnation) and one.data
    ]


async def system_of(system, *gateways, cores=("core-eu-1",)):
    """Cores and Gateways of one region, with a tenant of it, watched for long enough."""
    started = [
        *(system.core(name) for name in cores),
        *(system.incarnation(name) for name in gateways),
    ]
    for one in started:
        one.learn(LINK, tenant())
        await (one.start(regions=False, watch=False) if one.me.name in cores else one.start())
    await watched(system)
    return started


def cut_off(incarnation):
    """It hears nothing any more, and serves until its lease ends."""
    incarnation.log.disconnect()
    incarnation.bus.connected = False


async def kill(core, one=None):
    one = one or hold()
    return one, await core.kills.place(held(one), core.clock.unix_ms() + 20_000)


def hows(status):
    return {incarnation.instance: incarnation.how for incarnation in status.incarnations}


async def test_an_incarnation_that_crashed_longer_ago_than_its_lease_keeps_no_kill_waiting(system):
    core, gone = await system_of(system, "gw-eu-1")
    await gone.crash()
    await let_pass(system.timing.incarnation_bound_s(0) + 0.1)
    _, status = await kill(core)
    assert hows(status) == {"core-eu-1": "receipt", "gw-eu-1": "lease-ended"}
    assert status.complete


async def test_an_incarnation_that_crashed_just_now_is_waited_for_from_its_last_entry(system):
    core, gone = await system_of(system, "gw-eu-1")
    await gone.crash()
    crashed = core.clock.elapsed()
    await let_pass(8)
    one, status = await kill(core)
    assert not status.complete
    while not status.complete:
        await let_pass(0.1)
        status = await core.kills.status(one.id)
    took, bound = core.clock.elapsed() - crashed, system.timing.incarnation_bound_s(0)
    assert bound - system.timing.renew_every_s - 0.5 < took < bound + 0.5


async def test_who_began_a_moment_ago_says_of_nobody_that_he_is_not_there(system):
    """All whom it knows have purged; whom it does not know, it cannot say."""
    core = system.core("core-eu-1")
    await core.start(regions=False, watch=False)
    core.learn(LINK, tenant())
    one, status = await kill(core)
    assert hows(status) == {"core-eu-1": "receipt"}
    assert [region.how for region in status.regions] == ["watching"]
    assert not status.complete
    await watched(system)
    assert (await core.kills.status(one.id)).complete


async def test_a_renewal_that_was_skipped_and_lost_is_waited_for(system):
    """A Core heard an incarnation long ago; what came since was lost with the end of the stream."""
    core, incarnation = await system_of(system, "gw-eu-1")
    before = core.stream.snapshot()
    core.follower.paused = True
    await watched(system)
    cut_off(incarnation)
    core.stream.go_back(before)
    core.follower.resume()
    await until(core.live)
    _, status = await kill(core)
    assert incarnation.live()
    assert not status.complete


async def test_an_incarnation_that_began_in_another_stream_is_not_taken_for_a_later_one(system):
    core, later = await system_of(system, "gw-eu-1")
    cut_off(later)
    core.stream.recreate()
    await until(lambda: core.freshness.era and core.live())
    _, status = await kill(core)
    assert later.live()
    assert hows(status)["gw-eu-1"] == "waiting"
    assert not status.complete


async def test_the_first_record_put_above_a_hold_exempts_nobody(system):
    core, incarnation = await system_of(system, "gw-eu-1")
    cut_off(incarnation)
    one, _ = await kill(core)
    core.stream.store(lease_subject(incarnation), records(incarnation)[0].data)
    await settled()
    status = await core.kills.status(one.id)
    assert incarnation.live()
    assert not status.complete


@pytest.mark.parametrize("rubbish", [b"\xff" * 40, b""], ids=["not to be verified", "expired"])
async def test_a_write_in_the_place_of_a_silent_incarnation_makes_it_wait_from_the_hold(
    system, rubbish
):
    core, incarnation = await system_of(system, "gw-eu-1")
    await incarnation.crash()
    core.stream.store(lease_subject(incarnation), rubbish)
    await let_pass(system.timing.incarnation_bound_s(0) + 1)
    one, status = await kill(core)
    assert not status.complete
    await let_pass(system.timing.incarnation_bound_s(0) + 1)
    assert (await core.kills.status(one.id)).complete


async def test_the_end_of_an_entry_whose_incarnation_is_long_gone_is_no_news(system):
    core, incarnation = await system_of(system, "gw-eu-1")
    await incarnation.crash()
    await let_pass(120)
    core.stream.expire(lease_subject(incarnation))
    _, status = await kill(core)
    assert status.complete


async def test_an_instance_that_invents_incarnations_pushes_out_none_that_serves(system):
    core, incarnation = await system_of(system, "gw-eu-1")
    cut_off(incarnation)
    for number in range(200):
        invented = Lease(
            instance="gw-eu-1",
            incarnation=number.to_bytes(16, "big"),
            role=Role.GATEWAY,
            region="eu",
            nonce=number.to_bytes(16, "big"),
            first=1,
            lease_ms=10_000,
            holds=bytes(32),
            registry=[bytes(16)] * 16,
            roster=1,
            ended=number % 2 == 0,
        )
        subject = subjects.control_lease("eu", "gw-eu-1", invented.incarnation)
        core.stream.store(subject, signed(Kind.LEASE, invented, "gw-eu-1"))
    await settled()
    _, status = await kill(core)
    assert incarnation.live()
    assert not status.complete


async def test_a_hold_that_is_written_again_counts_from_then(system):
    core, incarnation = await system_of(system, "gw-eu-1")
    await incarnation.crash()
    await watched(system)
    one, status = await kill(core)
    assert status.complete
    place = subjects.control_hold("eu", one.scope, one.id)
    core.stream.store(place, b"something else")
    await until(lambda: core.stream.entries[place].data == held(one))
    assert not (await core.kills.status(one.id)).complete
    await watched(system)
    assert (await core.kills.status(one.id)).complete


async def test_another_region_says_for_how_long_it_watched_and_who_was_silent(system):
    record = tenant(regions=["eu", "us"])
    eu, us, gone = system.core("core-eu-1"), system.core("core-us-1"), system.incarnation("gw-us-1")
    for one in (eu, us, gone):
        one.learn(LINK, record)
    await asyncio.gather(eu.start(watch=False), us.start(watch=False), gone.start())
    await watched(system)
    await gone.crash()
    await let_pass(system.timing.incarnation_bound_s(0) + 1)
    one, status = await kill(eu)
    await until(lambda: us.switch.durable_at(one.id))
    status = await eu.kills.status(one.id)
    assert hows(status)["gw-us-1"] == "lease-ended"
    assert status.complete
    us.follower.again()
    await settled()
    two, _ = await kill(eu)
    await until(lambda: us.switch.durable_at(two.id))
    status = await eu.kills.status(two.id)
    assert {region.region: region.how for region in status.regions} == {
        "eu": "durable", "us": "watching",
    }  # fmt: skip
    assert not status.complete


# Peer leases


def peer_lease(mark, highest):
    statement = PeerLease(
        region="eu", other="us", position=mark.sequence, nonce=mark.nonce,
        stored=highest.sequence, hold=highest.nonce, roster=1,
    )  # fmt: skip
    return subjects.control_peer_lease("eu", "us"), signed(Kind.PEER_LEASE, statement, "core-eu-1")


async def test_a_peer_lease_counts_where_the_highest_hold_was_delivered_in_its_place(system):
    incarnation = system.incarnation("gw-eu-1")
    await incarnation.start()
    one = hold()
    mark = await incarnation.switch.caught_up()
    at = incarnation.stream.store(subjects.control_hold("eu", "tenant", one.id), held(one))
    await settled()
    for highest in (
        LogPosition(at, bytes(16)),
        LogPosition(at + 1, one.id),
        LogPosition(at - 1, one.id),
    ):
        incarnation.stream.store(*peer_lease(mark, highest))
        await settled()
        assert not incarnation.freshness.knows("us"), highest
    incarnation.stream.store(*peer_lease(mark, LogPosition(at, one.id)))
    await settled()
    assert incarnation.freshness.knows("us")


async def test_a_peer_lease_says_nothing_of_a_repair_that_a_rollback_took_away(system):
    """The other region's hold was stored and the peer lease sent; only the latter is stored."""
    incarnation = system.incarnation("gw-eu-1")
    await incarnation.start()
    one = hold(origin="us")
    mark = await incarnation.switch.caught_up()
    before = incarnation.stream.snapshot()
    at = incarnation.stream.store(subjects.control_hold("eu", "tenant", one.id), held(one))
    incarnation.follower.paused = True
    incarnation.stream.go_back(before)
    incarnation.follower.resume()
    await until(incarnation.live)
    incarnation.stream.store(*peer_lease(mark, LogPosition(at, one.id)))
    await settled()
    assert not incarnation.revocations.killed("acme")
    assert not incarnation.freshness.knows("us")
    incarnation.stream.store(*peer_lease(mark, NOWHERE))
    await settled()
    assert incarnation.freshness.knows("us")


async def test_a_core_names_the_highest_hold_that_it_knows_in_its_peer_leases(system):
    eu, us = system.core("core-eu-1"), system.core("core-us-1")
    await asyncio.gather(eu.start(watch=False), us.start(watch=False))
    subject = subjects.control_peer_lease("eu", "us")

    def last():
        entry = eu.stream.entries.get(subject)
        said = None if entry is None else eu.me.verifier.peer_lease(entry.data)
        return None if said is None else LogPosition(said.stored, said.hold)

    await until(lambda: last() == NOWHERE)
    for one in (hold(), hold()):
        eu.switch.learn(held(one))
        await until(lambda one=one: eu.switch.durable_at(one.id))
        highest = LogPosition(eu.switch.durable_at(one.id), one.id)
        await until(lambda highest=highest: last() == highest)


# Where a tenant is


@pytest.mark.parametrize("region_quorum", ["all", "local"])
async def test_who_knows_that_the_registry_is_another_one_asks_every_region(system, region_quorum):
    """By the newest record the tenant is served in a region that this Core would not ask."""
    core, gateway = system.core("core-eu-1"), system.incarnation("gw-us-1")
    us = system.core("core-us-1")
    core.learn(LINK, tenant(regions=["eu"]))
    for one in (us, gateway):
        one.learn(LINK, tenant(regions=["eu", "us"], revision=2, region_quorum=region_quorum))
    core.freshness.registry.without_baseline()
    await us.start(watch=False)
    await core.start(watch=False)
    await gateway.start()
    await until(lambda: gateway.freshness.knows("eu"))
    away = {"core-us-1", "gw-us-1"}
    system.wire.loses = lambda sender, receiver, _: (sender in away) != (receiver in away)
    one = hold(origin="eu")
    core.switch.issue(core.switch.verify(held(one)))
    await until(lambda: core.switch.durable_at(one.id))
    await let_pass(30)
    status = await core.kills.status(one.id)
    assert not status.complete
    assert {found.region: found.how for found in status.regions}["us"] == "unbounded"
