"""A roster that retires somebody comes to everybody, and what they signed is judged by it."""

import pytest
from kcm_schemas.codec import encode
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind

from tests.simulation.disk import SimDisk
from tests.simulation.run import run
from tests.simulation.trust import ROOT_KEY, SimRosterFiles, SimRosters, Verifiers, roster

FIRST = roster([("core-eu", Role.CORE, "eu")], ["ada"], ["eu"])
SECOND = FIRST.model_copy(update={"version": 2})


def signed(one):
    return encode(ROOT_KEY.sign(Kind.ROSTER, one))


def test_a_higher_roster_counts_and_outlives_a_crash():
    verifiers, disk = Verifiers(), SimDisk()
    rosters = SimRosters(
        verifiers, verifiers.of(FIRST, {}), raw=signed(FIRST), files=SimRosterFiles(disk)
    )
    assert rosters.take(signed(SECOND))
    assert rosters.version == 2
    assert rosters.verifier is verifiers.of(SECOND, {})
    disk.lose_power()
    assert SimRosterFiles(disk).read() == signed(SECOND)


@pytest.mark.parametrize("seed", [1, 3])
def test_a_run_in_which_somebody_is_retired_holds(seed):
    result = run(seed, "", True, "new-roster")
    assert result.failure == "", "\n".join(result.events)
    assert result.coverage["a signer who is retired"] == 1
