"""Junk under a name that no text has is cleared by Cores like other junk, and ends nothing."""

import pytest
from kcm_schemas import subjects

from tests.fakes.virtual import until
from tests.unit.switch.page_rig import data, held
from tests.unit.switch.statements import LINK, hold, tenant

ODD = ["a\udcff\udcfe", "a\x0bb", "a\0b"]


@pytest.mark.parametrize("noun", ["hold", "lifts", "lease", "peer-lease"])
async def test_junk_under_a_name_that_is_no_text_is_cleared(system, noun):
    incarnation = system.incarnation("core-eu-1")
    places = [f"{subjects.control_all('eu')[:-1]}{noun}.{name}" for name in ODD]
    for place in places:
        incarnation.stream.store(place, b"junk")
    await incarnation.start()
    await until(lambda: all(data(incarnation, place) == b"" for place in places))
    one = hold()
    incarnation.learn(LINK, tenant())
    incarnation.stream.store(subjects.control_hold("eu", one.scope, one.id), held(one, "security"))
    await until(lambda: incarnation.revocations.killed("acme"))
