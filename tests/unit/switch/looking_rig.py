"""Streams that lose entries, and what the Cores did about it."""

from kcm_schemas import subjects

from tests.fakes.virtual import until
from tests.unit.switch.page_rig import data, page, page_at
from tests.unit.switch.roster_rig import listing, signed, without
from tests.unit.switch.statements import held, hold


def repaired(*incarnations):
    return [
        one
        for incarnation in incarnations
        for kind, one in incarnation.events
        if kind == "stream.repaired"
    ]


def repairs(*incarnations):
    """How many of them are on record."""
    return sum(one["count"] for one in repaired(*incarnations))


async def with_page_roster_and_list(core, holds):
    """Start a Core that stores a page of these holds, a later roster and its endorsements.

    Return each subject with its data.
    """
    await core.start()
    core.switch.learn(page(holds))
    endorsements = listing(held(hold()))
    core.me.rosters.take(signed(without("security-2", endorsements)))
    core.me.rosters.take_list("security-2", endorsements.raw())
    places = (
        page_at(),
        subjects.control_roster("eu"),
        subjects.control_endorsements("eu", "security-2", 0),
    )
    await until(lambda: all(data(core, place) for place in places))
    return {place: data(core, place) for place in places}
