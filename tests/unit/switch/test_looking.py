"""A hole in the region's stream below its last record: Cores look for it, and fill it."""

import asyncio

import pytest
from kcm_killswitch.model.lift_pages import Place
from kcm_killswitch.replica.stream_audit import HURRIED_S, LOOK_S, LOOKED_AT
from kcm_runtime.audit.pacing import EVERY_S
from kcm_schemas import subjects

from tests.fakes.virtual import let_pass, until
from tests.unit.switch.looking_rig import repaired, repairs, with_page_roster_and_list
from tests.unit.switch.page_rig import data, some
from tests.unit.switch.roster_rig import rosters
from tests.unit.switch.statements import LINK, at, held, hold, lifted, tenant
from tests.unit.switch.test_completing import kill, system_of

WITHIN_S = 2 * LOOK_S + 1
"""In a small system every look sees everything, and the first one may be late."""


class Late:
    """Keeps puts of one subject back until they are let go."""

    def __init__(self, incarnation, subject):
        self.subject, self.go, self.tried = subject, asyncio.Event(), asyncio.Event()
        incarnation.log.before = self

    async def __call__(self, operation, subject):
        if (operation, subject) == ("put", self.subject):
            self.tried.set()
            await self.go.wait()


class Looks:
    """Counts which holds are asked for."""

    def __init__(self, incarnation):
        self.asked = []
        incarnation.log.before = self

    async def __call__(self, operation, subject):
        if operation == "last" and subjects.control_noun(subject) == "hold":
            self.asked.append((asyncio.get_running_loop().time(), subject))


@pytest.fixture
async def core(system):
    made = system.incarnation("core-eu-1", rosters=rosters())
    made.learn(LINK, tenant())
    return made


async def test_a_hold_that_the_stream_lost_behind_a_running_core_is_written_again(system, core):
    await core.start()
    one = hold()
    core.switch.learn(held(one))
    await until(lambda: core.switch.durable_at(one.id))
    before = core.switch.durable_at(one.id)
    core.stream.expire(at(one))
    await until(lambda: data(core, at(one)) == held(one), WITHIN_S)
    await until(lambda: core.switch.durable_at(one.id) > before)
    (event,) = repaired(core)
    assert event["detail"] == f"a hold was missing: {at(one)}"
    await let_pass(WITHIN_S)
    assert len(repaired(core)) == 1


async def test_who_is_asked_how_a_kill_stands_looks_whether_the_stream_still_has_it(system):
    """Long before its turn comes: an incarnation that starts now would not read it."""
    core, _ = await system_of(system, "gw-eu-1")
    one, status = await kill(core)
    assert status.complete
    core.stream.expire(at(one))
    late = Late(core, at(one))
    status = await core.kills.status(one.id)
    assert not status.complete
    assert [found.durable_at for found in status.regions if found.region == "eu"] == [0]
    late.go.set()
    await until(lambda: data(core, at(one)) == held(one))
    await until(lambda: repaired(core))


async def test_a_hold_that_is_known_to_be_missing_is_not_durable_until_it_is_written_again(
    system,
):
    core, gateway = await system_of(system, "gw-eu-1")
    one, status = await kill(core)
    assert status.complete
    core.stream.expire(at(one))
    late = Late(core, at(one))
    await asyncio.wait_for(late.tried.wait(), WITHIN_S)
    assert core.switch.durable_at(one.id) == 0
    assert not (await core.kills.status(one.id)).complete
    late.go.set()
    await until(lambda: core.switch.durable_at(one.id))
    await let_pass(system.timing.incarnation_bound_s(0) + 1)
    assert (await core.kills.status(one.id)).complete
    assert gateway.revocations.killed("acme")


async def test_an_older_state_in_its_place_is_replaced_by_what_is_known(system, core):
    await core.start()
    one = hold()
    core.switch.learn(held(one))
    await until(lambda: core.switch.durable_at(one.id))
    earlier = core.stream.entries[at(one)]
    core.switch.learn(lifted(one))
    await until(lambda: data(core, at(one)) == lifted(one))
    core.stream.entries[at(one)] = earlier
    await until(lambda: data(core, at(one)) == lifted(one), WITHIN_S)
    await until(lambda: repaired(core))
    (event,) = repaired(core)
    assert event["detail"] == f"another entry was in the place of a hold: {at(one)}"


async def test_a_page_the_roster_and_a_list_come_back_too(system, core):
    was = await with_page_roster_and_list(core, some())
    for place in was:
        core.stream.expire(place)
    await until(lambda: all(data(core, place) == was[place] for place in was), WITHIN_S)
    await until(lambda: len(repaired(core)) == 3)
    assert {one["detail"].split(": ")[1] for one in repaired(core)} == set(was)
    assert core.switch.holds.pages.has(Place("l1", "eu", "core-eu-1", 0))


async def test_cores_look_at_places_of_their_own_and_do_not_fight(system):
    cores = [system.incarnation(f"core-eu-{n}", rosters=rosters()) for n in (1, 2, 3)]
    for one in cores:
        await one.start()
    kills = [hold() for _ in range(20)]
    for one in kills:
        cores[0].switch.learn(held(one))
        await until(lambda one=one: all(each.switch.durable_at(one.id) for each in cores))
    stored = len(cores[0].stream.history)
    for one in kills:
        cores[0].stream.expire(at(one))
    await until(lambda: all(data(cores[0], at(one)) for one in kills), WITHIN_S)
    await let_pass(WITHIN_S)
    written = [one for one in cores[0].stream.history[stored:] if ".hold." in one.subject]
    assert len(written) == len(kills)
    await until(lambda: repairs(*cores) == len(kills), EVERY_S + 1)
    for one in kills:
        assert len({each.switch.durable_at(one.id) for each in cores}) == 1


async def test_a_look_costs_the_same_however_many_holds_are_known(system, core):
    many = [hold() for _ in range(10 * LOOKED_AT)]
    for one in many:
        core.stream.store(at(one), held(one))
    for number in range(10 * LOOKED_AT):  # so the count of messages tells nothing
        core.stream.store(subjects.control_head("eu", f"auditor-{number}"), b"x")
    await core.start()
    looks = Looks(core)
    await let_pass(4 * LOOK_S)
    assert 0 < len(looks.asked) <= 5 * LOOKED_AT
    await let_pass(8 * LOOK_S)
    assert {subject for _, subject in looks.asked} == {at(one) for one in many}


async def test_a_stream_with_fewer_messages_than_are_known_is_looked_through_at_once(system, core):
    many = [hold() for _ in range(10 * LOOKED_AT)]
    for one in many:
        core.stream.store(at(one), held(one))
    await core.start()
    for one in many[20:]:
        core.stream.expire(at(one))
    missing = [at(one) for one in many[20:]]
    await until(lambda: all(data(core, one) for one in missing), WITHIN_S + 20 * HURRIED_S)
    await until(lambda: repairs(core) == len(missing), EVERY_S + 1)


async def test_another_leader_is_looked_through_at_once(system, core):
    """One node of three that lost a part shows that when it leads."""
    many = [hold() for _ in range(10 * LOOKED_AT)]
    for one in many:
        core.stream.store(at(one), held(one))
    for number in range(10 * LOOKED_AT):
        core.stream.store(subjects.control_head("eu", f"auditor-{number}"), b"x")
    await core.start()
    await let_pass(WITHIN_S)
    for one in many[::40]:
        core.stream.expire(at(one))
    core.stream.leader = "another"
    missing = [at(one) for one in many[::40]]
    await until(lambda: all(data(core, one) for one in missing), LOOK_S + 20 * HURRIED_S)
    await until(lambda: repairs(core) == len(missing), EVERY_S + 1)


async def test_a_consumer_that_is_made_anew_is_a_reason_to_look_at_once(system, core):
    await core.start()
    one = hold()
    core.switch.learn(held(one))
    await until(lambda: core.switch.durable_at(one.id))
    await core.switch.renew()  # the consumer goes on behind it
    await let_pass(LOOK_S)
    core.stream.expire(at(one))
    core.stream.restart()
    await until(lambda: data(core, at(one)) == held(one), 10 * HURRIED_S)


async def test_a_broker_that_is_away_ends_no_looking(system, core):
    await core.start()
    one = hold()
    core.switch.learn(held(one))
    await until(lambda: core.switch.durable_at(one.id))
    core.log.connected = False
    await let_pass(3 * LOOK_S)
    core.stream.expire(at(one))
    core.log.connected = True
    await until(lambda: data(core, at(one)) == held(one), WITHIN_S)


async def test_a_gateway_does_not_look(system):
    gateway = system.incarnation("gw-eu-1")
    one = hold()
    gateway.stream.store(at(one), held(one))
    await gateway.start()
    looks = Looks(gateway)
    await let_pass(4 * LOOK_S)
    assert looks.asked == []


async def test_a_roster_that_the_broker_acknowledges_and_drops_does_not_count_as_stored(
    system, core
):
    core.stream.forgets.add(subjects.control_roster("eu"))
    await core.start()
    await let_pass(2)
    assert not core.switch.rosters.stored
    core.stream.forgets.clear()
    await until(lambda: core.switch.rosters.stored)
    assert data(core, subjects.control_roster("eu")) == core.me.rosters.raw
