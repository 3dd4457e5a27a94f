"""Whoever asks is answered in time although a region is cut off: what is in force can be told."""

import pytest
from kcm_killswitch.coordinator.hold_commands import HoldCommands
from kcm_killswitch.coordinator.result_store import ResultBucket
from kcm_killswitch.coordinator.results import Results
from kcm_killswitch.model.completeness import RegionFacts
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.model.timing import Timing
from kcm_killswitch.replica.hold_applier import to_state
from kcm_runtime.clock import SystemRandomness
from kcm_runtime.host import Host
from kcm_schemas.signed import Kind

from tests.fakes.bus import Bus, Clock
from tests.unit import trust_rig
from tests.unit.core_rig import VERIFIER, instance_context, signed

TIME_MS = 4000
"""What the operator's client gives one attempt."""
SILENT_S = 1.5
"""For which a region that does not answer is waited for."""


class Switch:
    """A kill switch whose stream acknowledges at once."""

    knows_registry = True
    lifts = None
    """Nobody asks for holds that pages end."""

    def __init__(self, revocations):
        self.told = 0
        self._revocations = revocations

    def verify(self, raw):
        return to_state(VERIFIER.hold_or_lift(raw))

    def issue(self, record):
        self._revocations.learn(record)

    async def broadcast(self, record):
        self.told += 1

    async def until_durable(self, hold_id, timeout_s):
        return True

    async def incarnations(self):
        return []

    def durable_at(self, hold_id):
        return 7

    async def looked_up(self, hold_id):
        return 7


class CutOff:
    """This region, and another one that is cut off: asking it takes its time, and says nothing."""

    def __init__(self, clock):
        self._clock = clock

    async def facts_here(self, hold_id):
        return RegionFacts(7, [])

    async def facts(self, region, hold_id, within_s=SILENT_S):
        self._clock.now += min(SILENT_S, within_s)


def host(clock):
    me, randomness = instance_context("core-eu"), SystemRandomness()
    return Host(me, clock, randomness, emit=lambda kind, **fields: None)


def results_of(switch, clock):
    return Results(host(clock), store=ResultBucket(Bus()), control_bus=None, switch=switch)


def kills_of(clock):
    state = ReplicaState.empty("eu", Timing())
    switch = Switch(state.revocations)
    kills = HoldCommands(
        host(clock),
        state,
        control_bus=None,
        switch=switch,
        regions=CutOff(clock),
        timing=Timing(),
        results=results_of(switch, clock),
    )
    return kills, switch


def lift_of(hold):
    from kcm_schemas.control import Lift

    held = signed(Kind.HOLD, hold, "security")
    return signed(Kind.LIFT, Lift(hold=held, issued_ms=1, reason="over"), "security")


async def test_a_lift_is_answered_before_its_deadline_while_a_region_is_cut_off():
    clock = Clock(1_000_000.0)
    kills, switch = kills_of(clock)
    deadline_ms = clock.unix_ms() + TIME_MS
    status = await kills.place(lift_of(trust_rig.hold()), deadline_ms)
    assert status.lifted
    assert {region.region: region.durable_at for region in status.regions}["eu"] == 7
    assert clock.unix_ms() < deadline_ms
    assert switch.told == 1


@pytest.mark.parametrize("time_ms", [300, 500, 1500, 4000])
async def test_a_hold_is_told_within_whatever_time_there_is(time_ms):
    clock = Clock(1_000_000.0)
    kills, switch = kills_of(clock)
    one = trust_rig.hold()
    deadline_ms = clock.unix_ms() + time_ms
    status = await kills.place(signed(Kind.HOLD, one, "security"), deadline_ms)
    assert {region.region: region.durable_at for region in status.regions} == {"eu": 7, "us": 0}
    assert not status.complete
    assert clock.unix_ms() < deadline_ms
    for ask in (
        lambda until_ms: kills.status(one.id, until_ms),
        lambda until_ms: kills.preview("tenant", "acme", until_ms),
    ):
        deadline_ms = clock.unix_ms() + time_ms
        await ask(deadline_ms)
        assert clock.unix_ms() < deadline_ms
    assert switch.told == 1  # a look publishes nothing
