"""``python -m tests.simulation.completing``: how long a kill takes to be complete after a crash.

In every world one Gateway crashes before an operator kills, and stays away. Messages are lost,
late, twice and out of order as the seed draws it; brokers store what they are sent, and nothing
else goes wrong. What is measured is the true time from the signing of the kill to the moment at
which the operator, who asks every now and then, is told that it is complete.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Final

from tests.simulation.drawing import draw
from tests.simulation.plan import OPERATORS, Fault, Kill, Plan, target
from tests.simulation.run import Run, quiet
from tests.simulation.stream import Store

KILL_AT: Final = 45.0
"""Seconds after the start at which an operator kills: Cores watch for longer than a lease."""

AFTER_S: Final = 30.0
"""Seconds for which a kill is watched."""

LONG_S: Final = 2.0
"""Seconds by which the dead incarnation's lease and its last answer have ended before the kill."""

SHORT_S: Final = 1.0
"""Seconds between the crash and the kill in the other worlds."""


def crashed(seed: int, before_s: float | None) -> Plan:
    """A world in which one Gateway crashed so long before the kill (None: its lease has ended)."""
    plan = draw(seed)
    kill = Kill(KILL_AT, OPERATORS[0], "tenant", seed % 7 / 7, 0.0, None)
    region = target(plan.tenants, kill).regions[0]
    gateways = [one for one in plan.members if (one.role, one.region) == ("gateway", region)]
    names = sorted(one.name for one in plan.members if one.region == region)
    pick = (names.index(gateways[0].name) + 0.5) / len(names)
    if before_s is None:
        before_s = plan.timing.incarnation_bound_s(0) + LONG_S
    plan.kills[:] = [kill]
    plan.faults[:] = [Fault(KILL_AT - before_s, 200.0, "crash", pick, region)]
    plan.store = Store(delay_s=plan.store.delay_s)
    plan.lasts = KILL_AT + AFTER_S
    return plan


def took(plan: Plan) -> float:
    """Seconds until the kill was complete; infinite if it never was."""
    run = Run(plan)
    loop, oracle = run.world.loop, run.world.oracle
    with quiet():
        try:
            loop.run(run.until_complete(), plan.lasts + 1)
        finally:
            loop.close()
    facts = [one for one in oracle.holds.values() if one.cause == "operator"]
    return min((one.complete_at - one.first_at for one in facts if one.complete_at), default=1e9)


def report(name: str, times: list[float]) -> str:
    """Median and 99th percentile, in a line."""
    times = sorted(times)
    worst = times[min(len(times) - 1, int(len(times) * 0.99))]
    return (
        f"{name}: median {statistics.median(times):.2f} s, p99 {worst:.2f} s, "
        f"{sum(one < 2 for one in times)} of {len(times)} below 2 s"
    )


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.completing")
    parser.add_argument("--seeds", type=int, default=50, help="how many worlds of each kind")
    count = parser.parse_args().seeds
    for name, before_s in (("every lease of the dead has ended", None), ("1 s after", SHORT_S)):
        print(report(name, [took(crashed(seed, before_s)) for seed in range(count)]), flush=True)


if __name__ == "__main__":
    main()
