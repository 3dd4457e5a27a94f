"""Looking holds up, and listing them, where thousands were ever placed."""

import pytest
from kcm_killswitch.model.hold_set import HoldState
from kcm_schemas import limits
from kcm_schemas.admin.holds import HoldPageQuery
from kcm_schemas.codec import encode

from tests.fakes.virtual import until
from tests.unit.switch.page_rig import held as placed
from tests.unit.switch.page_rig import lifted as ended_by
from tests.unit.switch.page_rig import page as lifts_of
from tests.unit.switch.page_rig import some
from tests.unit.switch.statements import LINK, held, hold, lifted, tenant

COUNT = 5_000
"""Holds ever placed: with all of them in one answer nobody could lift after some 1,900."""

FIRST = bytes(limits.ID_SIZE)


@pytest.fixture
def core(system):
    """Knows many holds, of which every hundredth is in force."""
    made = system.core("core-eu-1")
    for n in range(COUNT):
        one = hold(reason="a reason that somebody wrote down")
        over = None if n % 100 == 0 else lifted(one)
        made.revocations.learn(HoldState(one, held(one), over))
    return made


async def pages(core, *, everything):
    """All pages, from the first to the last."""
    found, after = [], FIRST
    while True:
        page = await core.kills.holds.page(HoldPageQuery(after=after, everything=everything))
        found.append(page)
        if not page.more:
            return found
        after = page.holds[-1].hold_id


async def test_a_hold_is_looked_up_by_its_id_however_many_there_are(core):
    for record in list(core.revocations.holds)[::250]:
        (view,) = (await core.kills.holds.find(record.hold.id.hex())).holds
        assert (view.hold_id, view.raw) == (record.hold.id, record.raw)
        assert view.lifted == record.lifted
        told = (9, "security", "over") if record.lifted else (0, "", "")
        assert (view.lifted_ms, view.lifted_by, view.lift_reason) == told
    assert (await core.kills.holds.find("f" * 32)).holds == []


async def test_an_id_that_is_short_finds_one_or_says_that_there_are_several(core):
    ids = [record.hold.id.hex() for record in core.revocations.holds]
    for digits in (1, 3, 7, 32):
        for one in ids[::500]:
            found = [
                view.hold_id.hex() for view in (await core.kills.holds.find(one[:digits])).holds
            ]
            assert found == sorted(other for other in ids if other.startswith(one[:digits]))[:2]


@pytest.mark.parametrize("everything", [False, True])
async def test_a_list_comes_in_pages_that_a_message_can_carry(core, everything):
    known = [one.hold.id for one in core.revocations.holds.in_order() if everything or not one.lift]
    found = await pages(core, everything=everything)
    assert [view.hold_id for page in found for view in page.holds] == known
    assert len(known) == (COUNT if everything else COUNT // 100)
    for page in found:
        assert len(encode(page)) < limits.BODY_MAX - 1024
        assert len(page.holds) <= limits.HOLD_PAGE_MAX


async def test_a_page_of_the_longest_holds_fits_too(system):
    core = system.core("core-eu-1")
    for _ in range(40):
        one = hold(reason="\U0001f512" * limits.TEXT_MAX)
        core.revocations.learn(HoldState(one, held(one), lifted(one)))
    for page in await pages(core, everything=True):
        assert len(encode(page)) < limits.BODY_MAX - 1024


async def test_what_pages_end_is_found_and_listed_from_the_archive(system, monkeypatch):
    monkeypatch.setattr("kcm_killswitch.coordinator.hold_list.ARCHIVED_MAX", 3)
    core = system.core("core-eu-1")
    await core.start(regions=False, watch=False)
    core.learn(LINK, tenant())
    ended, kept = some(8), some(4, prefix=9)
    for one in ended + kept[:2]:
        core.switch.learn(ended_by(one))
    for one in kept[2:]:
        core.switch.learn(placed(one))
    core.switch.learn(lifts_of(ended))
    by_page = some(9)[-1]  # lifted by the page alone
    core.switch.learn(placed(by_page))
    core.switch.learn(lifts_of([*ended, by_page]))
    everything = sorted(one.id for one in [*ended, *kept, by_page])
    await until(lambda: len(core.hold_store.archived_between(FIRST, b"\xff" * 16, 99)) == 9)
    found = [view for one in await pages(core, everything=True) for view in one.holds]
    assert [view.hold_id for view in found] == everything
    assert {view.hold_id for view in found if not view.lifted} == {one.id for one in kept[2:]}
    assert len(await pages(core, everything=False)) == 1
    for one in ended:
        (view,) = (await core.kills.holds.find(one.id.hex())).holds
        assert (view.lifted, view.lifted_by, view.reason) == (True, "core-eu-1", one.reason)
        status = await core.kills.status(one.id)
        assert (status.lifted, status.target) == (True, one.target)
    (view,) = (await core.kills.holds.find(by_page.id.hex())).holds
    assert (view.lifted, view.lifted_ms, view.lifted_by) == (True, 9, "core-eu-1")
    # Who places or lifts it once more is told at once how it stands.
    for raw in (placed(ended[0]), ended_by(ended[0], "core-eu-2")):
        status = await core.kills.place(raw, core.clock.unix_ms() + 5_000)
        assert (status.lifted, core.revocations.killed("acme")) == (True, True)
        assert core.revocations.holds.get(ended[0].id) is None


async def test_archived_holds_that_count_no_more_end_no_list(system, monkeypatch):
    monkeypatch.setattr("kcm_killswitch.coordinator.hold_list.ARCHIVED_MAX", 3)
    core = system.core("core-eu-1")
    await core.start(regions=False, watch=False)
    them = some(12)
    for one in them:
        core.switch.learn(ended_by(one))
    core.switch.learn(lifts_of(them))
    await until(lambda: len(core.hold_store.archived_between(FIRST, b"\xff" * 16, 99)) == 12)
    # As if no page named the others any more.
    core.revocations.turned(0, "l1.eu", them[0].id + them[11].id)
    found = [view.hold_id for one in await pages(core, everything=True) for view in one.holds]
    assert found == [them[0].id, them[11].id]
