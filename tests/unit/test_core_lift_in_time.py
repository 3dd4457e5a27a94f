"""A lift is answered in time although a region is cut off: it is in force, and that can be told."""

from kcm_bus.learning import to_record
from kcm_control.completeness import RegionFacts
from kcm_control.registry import Registry
from kcm_control.revocation import Revocations
from kcm_control.timing import Timing
from kcm_core.kills import Kills
from kcm_schemas.signed import Kind

from tests.fakes.bus import Clock
from tests.unit import trust_rig
from tests.unit.core_rig import VERIFIER, membership, signed

TIME_MS = 4000
"""What the operator's client gives one attempt."""
SILENT_S = 1.5
"""For which a region that does not answer is waited for."""


class Switch:
    """A kill switch whose stream acknowledges at once."""

    def __init__(self, revocations):
        self.told = 0
        self._revocations = revocations

    def issue(self, raw):
        self._revocations.learn(to_record(VERIFIER.hold_or_lift(raw)))

    async def tell(self, raw):
        self.told += 1

    def durable_at(self, hold_id):
        return 7


class CutOff:
    """This region, and another one that is cut off: asking it takes its time, and says nothing."""

    def __init__(self, clock):
        self._clock = clock

    async def facts_here(self, hold_id):
        return RegionFacts(7, [])

    async def facts(self, region, hold_id):
        self._clock.now += SILENT_S


def lift_of(hold):
    from kcm_schemas.control import Lift

    held = signed(Kind.HOLD, hold, "security")
    return signed(Kind.LIFT, Lift(hold=held, issued_ms=1, reason="over"), "security")


async def test_a_lift_is_answered_before_its_deadline_while_a_region_is_cut_off():
    clock = Clock(1_000_000.0)
    revocations = Revocations(Registry(), "eu")
    switch = Switch(revocations)
    kills = Kills(
        membership=membership("core-eu"), control_bus=None, registry=Registry(),
        revocations=revocations, switch=switch, regions=CutOff(clock), timing=Timing(), clock=clock,
        emit=lambda kind, **fields: None,
    )  # fmt: skip
    deadline_ms = clock.unix_ms() + TIME_MS
    status = await kills.place(lift_of(trust_rig.hold()), deadline_ms)
    assert status.lifted
    assert {region.region: region.durable_at for region in status.regions}["eu"] == 7
    assert clock.unix_ms() < deadline_ms
    assert switch.told <= 3
