"""Kills, lifts and crashes while an incarnation catches up, or ends."""

import asyncio

import pytest
from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError

from tests.fakes.virtual import let_pass, settled, until
from tests.unit.switch.gateway_incarnation import pair
from tests.unit.switch.statements import LINK, at, held, hold, lifted, tenant

# While an incarnation catches up


async def test_a_kill_that_is_broadcast_while_an_incarnation_catches_up_is_heard(system):
    stream = system.streams["eu"]
    for number in range(50):
        stream.store(at(hold(target=f"t{number}")), held(hold(target=f"t{number}")))
    incarnation = system.incarnation("gw-eu-1")
    one = hold()
    incarnation.follower.paused = True
    starting = asyncio.create_task(incarnation.start())
    await settled()
    assert not starting.done()
    await system.wire.join("outside").publish(
        subjects.broadcast_hold("eu", "tenant", one.id), held(one)
    )
    await settled()
    assert incarnation.revocations.killed("acme")
    assert not incarnation.live()
    incarnation.follower.resume()
    await starting
    assert incarnation.live()
    assert incarnation.revocations.killed("acme")


async def test_a_kill_stored_while_an_incarnation_catches_up_is_known_before_its_lease(system):
    stream = system.streams["eu"]
    one = hold()
    incarnation = system.incarnation("gw-eu-1")
    stored = []

    async def just_before(operation, subject):
        if operation == "put" and not stored:
            stored.append(stream.store(at(one), held(one)))

    incarnation.log.before = just_before
    incarnation.on_purge = lambda _: not incarnation.live() or pytest.fail("it had a lease already")
    await incarnation.start()
    assert stored
    assert incarnation.purged == ["acme"]


async def test_stale_messages_replayed_after_a_lift_kill_nobody(system):
    core, gateway = await pair(system)
    one = hold()
    for raw in (held(one), lifted(one)):
        await core.kills.place(raw, core.clock.unix_ms() + 20_000)
    await until(lambda: not gateway.revocations.killed("acme"))
    purged = len(gateway.purged), len(core.purged)
    for _ in range(10):
        await system.wire.join("outside").publish(
            subjects.broadcast_hold("eu", "tenant", one.id), held(one)
        )
        core.stream.store(at(one), held(one))
        await settled()
    assert not gateway.revocations.killed("acme")
    assert (len(gateway.purged), len(core.purged)) == purged
    await until(lambda: core.stream.entries[at(one)].data == lifted(one))
    assert len((await gateway.engine.encrypt("acme", "crm", [b"x"])).values) == 1


# Whoever dies


async def test_an_issuer_that_dies_between_broadcast_and_acknowledgement_loses_nothing(system):
    issuer, other = system.core("core-eu-1"), system.core("core-eu-2")
    await asyncio.gather(*(c.start(regions=False, watch=False) for c in (issuer, other)))
    one = hold()

    async def never(operation, subject):
        if operation == "put" and ".hold." in subject:
            raise KcmError(Code.UNAVAILABLE)

    issuer.log.before = never
    placing = asyncio.create_task(issuer.kills.place(held(one), issuer.clock.unix_ms() + 60_000))
    await until(lambda: other.revocations.killed("acme"))
    placing.cancel()
    await issuer.crash()
    await until(lambda: at(one) in other.stream.entries)
    late = system.incarnation("gw-eu-1")
    await late.start()
    assert late.revocations.killed("acme")


async def test_an_issuer_that_dies_before_it_broadcasts_is_repeated_by_its_client(system):
    issuer, other = system.core("core-eu-1"), system.core("core-eu-2")
    await asyncio.gather(*(c.start(regions=False, watch=False) for c in (issuer, other)))
    one = hold()
    issuer.bus.connected = issuer.log.connected = False
    placing = asyncio.create_task(issuer.kills.place(held(one), issuer.clock.unix_ms() + 60_000))
    await until(lambda: issuer.revocations.killed("acme"))
    placing.cancel()
    await issuer.crash()
    other.learn(LINK, tenant())
    status = await other.kills.place(held(one), other.clock.unix_ms() + 20_000)
    assert other.revocations.killed("acme")
    assert not status.complete, (
        "the dead issuer's incarnation is on record until its lease has ended"
    )
    await let_pass(system.timing.incarnation_bound_s(0) + 1)
    status = await other.kills.status(one.id)
    assert status.complete
    assert {incarnation.how for incarnation in status.incarnations} == {"receipt", "lease-ended"}


async def test_a_crash_right_after_the_purge_loses_nothing(system):
    core, other = system.core("core-eu-1"), system.core("core-eu-2")
    await asyncio.gather(*(c.start(regions=False, watch=False) for c in (core, other)))
    one = hold()
    await system.wire.join("outside").publish(
        subjects.broadcast_hold("eu", "tenant", one.id), held(one)
    )
    await until(lambda: core.purged and other.purged)
    await core.crash()
    again = system.core("core-eu-1")
    await until(lambda: at(one) in core.stream.entries)
    await again.start(regions=False, watch=False)
    assert again.revocations.killed("acme")


async def test_a_restart_loop_neither_serves_nor_keeps_a_kill_from_being_complete(system):
    core = system.core("core-eu-1")
    await core.start(regions=False, watch=False)
    core.learn(LINK, tenant())
    one = hold()
    for number in range(30):
        incarnation = system.incarnation("gw-eu-1")
        if number == 15:
            await core.kills.place(held(one), core.clock.unix_ms() + 20_000)
        await incarnation.start()
        assert incarnation.revocations.killed("acme") == (number >= 15)
        await incarnation.crash()
        await let_pass(0.5)
    last = system.incarnation("gw-eu-1")
    await last.start()
    assert last.revocations.killed("acme")
    await let_pass(system.timing.incarnation_bound_s(0) + 1)
    status = await core.kills.status(one.id)
    assert status.complete
    assert {incarnation.how for incarnation in status.incarnations} <= {
        "receipt",
        "started-after",
        "lease-ended",
    }


async def test_a_silent_incarnation_is_waited_for_until_its_lease_and_answer_have_ended(system):
    core, silent = system.core("core-eu-1"), system.incarnation("gw-eu-1")
    await asyncio.gather(core.start(regions=False, watch=False), silent.start())
    core.learn(LINK, tenant())
    silent.log.disconnect()
    silent.bus.connected = False
    one = hold()
    status = await core.kills.place(held(one), core.clock.unix_ms() + 20_000)
    while not status.complete:
        assert not [
            b for b in status.incarnations if b.instance == "gw-eu-1" and b.how != "waiting"
        ]
        await let_pass(0.5)
        status = await core.kills.status(one.id)
        if status.complete:
            assert not silent.live()
    assert [b.how for b in status.incarnations if b.instance == "gw-eu-1"] == ["lease-ended"]
