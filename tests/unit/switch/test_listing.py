"""Looking holds up, and listing them, where thousands were ever placed."""

import pytest
from kcm_control.holds import HoldRecord
from kcm_schemas import limits
from kcm_schemas.admin import HoldPageQuery
from kcm_schemas.codec import encode

from tests.unit.switch.rig import held, hold, lifted

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
        made.revocations.learn(HoldRecord(one, "security", held(one), over))
    return made


def pages(core, *, everything):
    """All pages, from the first to the last."""
    found, after = [], FIRST
    while True:
        page = core.kills.page(HoldPageQuery(after=after, everything=everything))
        found.append(page)
        if not page.more:
            return found
        after = page.holds[-1].hold_id


async def test_a_hold_is_looked_up_by_its_id_however_many_there_are(core):
    for record in list(core.revocations.holds)[::250]:
        (view,) = core.kills.find(record.hold.id.hex()).holds
        assert (view.hold_id, view.raw) == (record.hold.id, record.raw)
        assert view.lifted == record.lifted
        told = (9, "security", "over") if record.lifted else (0, "", "")
        assert (view.lifted_ms, view.lifted_by, view.lift_reason) == told
    assert core.kills.find("f" * 32).holds == []


async def test_an_id_that_is_short_finds_one_or_says_that_there_are_several(core):
    ids = [record.hold.id.hex() for record in core.revocations.holds]
    for digits in (1, 3, 7, 32):
        for one in ids[::500]:
            found = [view.hold_id.hex() for view in core.kills.find(one[:digits]).holds]
            assert found == sorted(other for other in ids if other.startswith(one[:digits]))[:2]


@pytest.mark.parametrize("everything", [False, True])
async def test_a_list_comes_in_pages_that_a_message_can_carry(core, everything):
    known = [one.hold.id for one in core.revocations.holds.in_order() if everything or not one.lift]
    found = pages(core, everything=everything)
    assert [view.hold_id for page in found for view in page.holds] == known
    assert len(known) == (COUNT if everything else COUNT // 100)
    for page in found:
        assert len(encode(page)) < limits.BODY_MAX - 1024
        assert len(page.holds) <= limits.HOLD_PAGE_MAX


async def test_a_page_of_the_longest_holds_fits_too(system):
    core = system.core("core-eu-1")
    for _ in range(40):
        one = hold(reason="\U0001f512" * limits.TEXT_MAX)
        core.revocations.learn(HoldRecord(one, "security", held(one), lifted(one)))
    for page in pages(core, everything=True):
        assert len(encode(page)) < limits.BODY_MAX - 1024
