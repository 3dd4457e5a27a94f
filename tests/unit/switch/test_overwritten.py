"""What a client writes over entries of the stream is repaired, and is on record."""

import pytest
from kcm_runtime.audit.pacing import EVERY_S
from kcm_schemas import subjects
from kcm_schemas.codes import Code

from tests.fakes.virtual import let_pass, until
from tests.unit.switch.looking_rig import repaired, repairs, with_page_roster_and_list
from tests.unit.switch.page_rig import data, page, some
from tests.unit.switch.roster_rig import FIRST, rosters, signed
from tests.unit.switch.statements import LINK, at, held, hold, lifted, tenant


class Overwrites:
    """Puts something else over what an incarnation has written, as soon as that is acknowledged."""

    def __init__(self, incarnation, subject, times):
        self.incarnation, self.subject, self.times = incarnation, subject, times
        incarnation.log.before = self

    async def __call__(self, operation, subject):
        if (operation, subject) == ("ack", self.subject) and self.times:
            self.times -= 1
            self.incarnation.stream.store(subject, b"garbage")


@pytest.fixture
async def core(system):
    made = system.incarnation("core-eu-1", rosters=rosters())
    made.learn(LINK, tenant())
    return made


@pytest.mark.parametrize("lies", ["garbage", "older"])
async def test_whoever_writes_over_a_hold_without_end_cannot_fill_the_record(system, core, lies):
    other = system.incarnation("core-eu-2", rosters=rosters())
    for each in (core, other):
        await each.start()
    one = hold()
    core.switch.learn(held(one))
    await until(lambda: data(core, at(one)) == held(one))
    core.switch.learn(lifted(one))
    await until(
        lambda: other.switch.durable_at(one.id) and other.revocations.holds.get(one.id).lifted
    )
    stored = [
        fields["detail"]
        for each in (core, other)
        for kind, fields in each.events
        if kind == "hold.durable"
    ]
    assert stored == ["", "lifted"]
    for each in (core, other):
        each.events.clear()
    writes = 200
    for _ in range(writes):
        core.stream.store(at(one), b"garbage" if lies == "garbage" else held(one))
        await until(lambda: data(core, at(one)) == lifted(one))
    await let_pass(EVERY_S + 1)
    assert [
        kind for each in (core, other) for kind, _ in each.events if kind.startswith("hold.")
    ] == []
    assert {(fields["code"], fields["detail"]) for fields in repaired(core, other)} == {
        (Code.TAMPERED, f"another entry was in the place of a hold: {at(one)}")
    }
    assert repairs(core, other) == writes
    assert len(repaired(core, other)) <= 4


async def test_whoever_writes_over_a_hold_at_once_does_not_hide_that_it_was_stored(core):
    await core.start()
    one = hold()
    times = 5
    Overwrites(core, at(one), times)
    core.switch.learn(held(one))
    await until(lambda: core.switch.durable_at(one.id) and data(core, at(one)) == held(one))
    await let_pass(EVERY_S + 1)
    assert core.count("hold.durable") == 1
    assert repairs(core) == times


async def test_what_is_written_over_a_page_the_roster_or_a_list_is_recorded_too(core):
    them = some()
    was = await with_page_roster_and_list(core, them)
    await let_pass(1)  # everything is delivered
    assert repaired(core) == []
    lies = [b"garbage", signed(FIRST), page(them[:1])]
    for lie in lies:
        for place in was:
            core.stream.store(place, lie)
            await until(lambda place=place: data(core, place) == was[place])
    await let_pass(EVERY_S + 1)
    assert {one["code"] for one in repaired(core)} == {Code.TAMPERED}
    assert repairs(core) == len(lies) * len(was)
    assert len(repaired(core)) <= 4


async def test_garbage_at_places_of_nothing_is_counted_and_recorded(core):
    await core.start()
    times = 120
    for number in range(times):
        core.stream.store(subjects.control_hold("eu", "tenant", number.to_bytes(16, "big")), b"x")
        await let_pass(1.0)
    await let_pass(EVERY_S + 1)
    cleared = [fields["count"] for kind, fields in core.events if kind == "stream.cleared"]
    assert sum(cleared) == times
    assert len(cleared) <= 2 * (times // EVERY_S + 1)
