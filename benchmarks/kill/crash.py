"""Kills after a crash, beside kills while everybody lives, turn by turn.

A Gateway is ended with SIGKILL and stays away until the kill is complete. Right after the crash a
kill has to wait until the lease of the dead one has ended; when it has, nobody is waited for.
"""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from typing import Final

from kcm import Admin
from kcm_devsystem import state, system
from kcm_killswitch.model.timing import Timing
from kcm_schemas.roster import Role

from benchmarks.kill.living import System, make_links, make_tenants, open_tenants, tenant_name
from benchmarks.kill.placing import Placing
from benchmarks.kill.sample import Figure, spread
from benchmarks.measure import in_turns, percentile

PART: Final = "a kill after a crash"

TIMING: Final = Timing(control_lease_s=2.0, renew_every_s=0.5)

WATCH_S: Final = TIMING.incarnation_bound_s(0)
"""Seconds for which a Core has followed its stream before it knows that nobody is missing."""

TARGET_S: Final = 2.0
"""Seconds until a kill is complete when every lease of the dead has ended, in the median."""

WAITS_S: Final = {
    "nobody crashed": 0.0,
    "every lease of the dead had ended": WATCH_S + TIMING.renew_every_s,
    "a second after the crash": 1.0,
}
"""Seconds from the crash to the kill, by turn."""

QUIET, ENDED, SOON = WAITS_S


async def measure(at: System, rounds: int) -> list[Figure]:
    """Make and open a tenant, then kill it again and again."""
    took: dict[str, list[float]] = {what: [] for what in WAITS_S}
    async with Admin.open(at.context) as admin:
        await make_links(at, admin, 1)
        await make_tenants(at, admin, 1, 1)
        await open_tenants(at, 1, 2)
        await asyncio.sleep(WATCH_S)
        placing = Placing(admin, at.regions[0])
        for number in range(rounds):
            for what in in_turns(number, tuple(WAITS_S)):
                if what != QUIET:
                    _crash_gateway(at)
                    await asyncio.sleep(WAITS_S[what])
                hold_id, raw = placing.hold(tenant_name(0))
                took[what].append(await placing.complete(hold_id, raw))
                await placing.lift(raw)
                if what != QUIET:
                    # Only the main thread can start what dies with it; the end ends this, too.
                    free = replace(at.options, die_with_parent=False)
                    await asyncio.to_thread(system.up, free)
                await open_tenants(at, 1, 1)
    found = [one for what in WAITS_S for one in spread(PART, f"{what}, to complete", took[what])]
    median = percentile(took[ENDED], 50)
    return [
        *found,
        Figure(PART, f"{ENDED}, median", median, "s", TARGET_S),
        Figure(PART, f"{SOON}, maximum", max(took[SOON]), "s", WATCH_S, note="the lease's bound"),
    ]


def _crash_gateway(at: System) -> None:
    """End the first region's Gateway at once, without a word."""
    name = next(one.name for one in at.options.members if one.role is Role.GATEWAY)
    known = state.load(at.options.directory)
    entries = known.entries if known is not None else ()
    pid = next(entry.process.pid for entry in entries if entry.instance == name)
    os.kill(pid, signal.SIGKILL)
