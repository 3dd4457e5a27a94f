"""What a seed stands for: a plan whose every part is drawn from it.

The same seed draws the same plan.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, Final

from kcm_killswitch.model.timing import Timing
from kcm_schemas.registry import RegionQuorum

from tests.simulation.aim import OFTEN_S, Aim
from tests.simulation.foci import FOCI
from tests.simulation.history import TenantFacts
from tests.simulation.network import Weather
from tests.simulation.plan import (
    LINKS,
    OPERATORS,
    REGIONS,
    Fault,
    Kill,
    Member,
    Plan,
    Regrant,
    Relink,
    Scope,
    target,
)
from tests.simulation.stream import Store

FAULTS: Final = (
    "pause", "suspend", "crash", "crash", "restart-loop", "disconnect", "stall", "leaf-stall",
    "leaf-cut", "leaf-loss", "backbone-cut", "region-cut", "broker-restart", "minority", "rollback",
    "recreation", "storm", "slow-store", "wall-jump", "l1-slow", "l1-hang", "l1-unreachable",
    "l1-disabled", "l1-flap", "l1-disagree", "l1-credentials", "kill-issuer", "crash-after-purge",
    "hold-reply", "host-suspend", "deaf-side", "full-disks", "failing-write", "blackout",
    "overtaken", "new-roster",
)  # fmt: skip


AIMED: Final = (
    "deaf-side", "deaf-side", "deaf-side", "deaf-side", "minority", "minority", "host-suspend",
    "host-suspend", "leaf-stall", "leaf-cut", "region-cut",
    "pause", "suspend", "disconnect", "stall", "crash", "hold-reply", "hold-reply", "l1-hang",
    "broker-restart", "rollback", "storm", "restart-loop",
)  # fmt: skip
"""What happens just before a kill, and lasts longer than the leases: there the bounds are tight."""


SETBACKS: Final = (
    "registry-back", "registry-emptied", "registry-fork", "registry-gone-core",
    "registry-late-gateways", "registry-late-side", "registry-lost", "registry-older",
    "registry-new-disk", "registry-refused",
)  # fmt: skip
"""What happens to a registry that can change."""


CHANGING: Final = 0.2
"""Part of the seeds without a focus whose registry can change."""


ASKING: Final = 0.2
"""Part of the seeds without a focus in which applications ask Cores for keys."""


HELD_KEYS: Final = 0.4
"""Part of the seeds without a focus in which keys of applications and instances are held."""


ROSTERS: Final = ("new-roster", "late-rosters")
"""Faults that retire an operator."""


FOCUSED: Final = 0.5
"""Part of the seeds that have a focus."""


def draw(seed: int, variant: str = "", *, excuse_in_flight: bool = False, focus: str = "") -> Plan:
    """The plan of a seed. ``focus`` is what it has to aim at, and otherwise is drawn, too."""
    source = random.Random(seed)
    regions = list(REGIONS[: source.choice((1, 2, 2, 2, 3, 3, 4))])
    members = [one for region in regions for one in _members(source, region)]
    timing = _timing(source)
    lasts = source.uniform(60, 110)
    kills = _kills(source, lasts)
    tenants = _tenants(source, regions)
    faults = _faults(source, lasts) + _aimed(source, kills, tenants, timing)
    plan = Plan(
        seed=seed,
        variant=variant,
        regions=regions,
        members=members,
        tenants=tenants,
        timing=timing,
        weather=_weather(source),
        store=_store(source),
        rates=_rates(source, members, regions, timing.clock_error),
        wall_s={one.name: source.uniform(-0.5, 0.5) for one in members},
        lasts=lasts,
        faults=sorted(faults, key=lambda fault: fault.at),
        kills=kills,
        every_s=source.uniform(1.0, 3.0),
        worker=source.choice((0.0, 0.3, 0.8)),
        excuse_in_flight=excuse_in_flight,
    )
    plan.page_s = random.Random(f"paging of {seed}").choice((0.0, 0.0, 0.5, 5.0))
    drawn = source.choice(sorted(FOCI)) if source.random() < FOCUSED else ""
    focus = focus or drawn
    if not focus:
        _registry(plan, random.Random(f"registry of {seed}"))
        _applications(plan, random.Random(f"applications of {seed}"))
    _focus(plan, focus, source)
    plan.lasts += random.Random(f"length of {seed}").random() / 1000  # a focus may have a fixed one
    if plan.registry:  # else tenants go dark whose record somebody retired has signed
        plan.faults[:] = [one for one in plan.faults if one.kind not in ROSTERS]
    return plan


def _registry(plan: Plan, source: random.Random) -> None:
    """In some of the seeds that aim at nothing else tenants move, and the registry suffers."""
    if source.random() >= CHANGING:
        return
    plan.change_registry()
    plan.relinks += [
        Relink(source.uniform(8, plan.lasts - 5), source.choice(OPERATORS), source.random())
        for _ in range(source.choice((1, 2, 3)))
    ]
    for kill in plan.kills:
        if kill.scope == "link" and source.random() < 0.5:  # just before it, to that link
            at = max(8.0, kill.at - source.choice((0.2, 1.0, 3.0)) * source.random())
            plan.relinks.append(Relink(at, source.choice(OPERATORS), kill.pick))
    plan.faults += [
        Fault(
            source.uniform(8, plan.lasts),
            source.choice((3.0, 12.0, 25.0)) * source.uniform(0.5, 1.5),
            source.choice(SETBACKS),
            source.random(),
        )
        for _ in range(source.choice((0, 1, 2, 3)))
    ]
    plan.faults.sort(key=lambda fault: fault.at)


def _applications(plan: Plan, source: random.Random) -> None:
    """In some of the seeds that aim at nothing else keys are held, and entries are changed."""
    plan.asks = source.random() < ASKING
    if plan.asks and source.random() < 0.5:
        plan.thief = source.choice([one.name for one in plan.members if one.role == "gateway"])
    if source.random() >= HELD_KEYS:
        return
    scopes: tuple[Scope, ...] = ("app", "app", "app", "instance")
    plan.kills += [
        _kill(source, source.uniform(10, plan.lasts - 5), source.random(), source.choice(scopes))
        for _ in range(source.choice((1, 1, 2)))
    ]
    plan.kills.sort(key=lambda kill: kill.at)
    if plan.registry:
        plan.regrants += [
            Regrant(
                source.uniform(8, plan.lasts - 5),
                source.choice(OPERATORS),
                source.random(),
                source.choice(("narrow", "narrow", "rotate")),
            )
            for _ in range(source.choice((1, 2, 3)))
        ]


def _focus(plan: Plan, focus: str, source: random.Random) -> None:
    """Aim at one kill, with little beside it, in a region that has two sides."""
    if not focus:
        return
    kill = replace(plan.kills[0], lift_after=None)
    region = source.choice(target(plan.tenants, kill).regions)
    plan.focus, plan.every_s = focus, OFTEN_S
    plan.kills[:] = [kill]
    plan.faults[:] = [one for one in plan.faults if source.random() < 0.1]
    plan.members = [one for one in plan.members if one.region != region]
    plan.members += [Member(f"core-{region}-{n}", "core", region, n % 2) for n in range(3)]
    plan.members += [Member(f"gw-{region}-{n}", "gateway", region, n) for n in range(2)]
    for one in plan.members:
        plan.rates.setdefault(one.name, 1.0)
        plan.wall_s.setdefault(one.name, 0.0)
    if source.random() < 0.7:  # where other regions bound nothing, the own one has to
        plan.tenants = [
            one if one.model == "hyok" else replace(one, policy="local") for one in plan.tenants
        ]
    FOCI[focus](Aim(plan, source, kill, region, source.random(), Fault, Relink))
    plan.bind()
    plan.faults.sort(key=lambda fault: fault.at)
    # Operators' clocks may run slow, and nobody kills after everything was mended.
    plan.kills[:] = [replace(one, at=min(one.at, plan.lasts - 5)) for one in plan.kills]


def _members(source: random.Random, region: str) -> list[Member]:
    cores = [
        Member(f"core-{region}-{n}", "core", region, n % 2)
        for n in range(source.choice((1, 2, 2, 3)))
    ]
    gateways = source.choice((1, 1, 2))
    return cores + [Member(f"gw-{region}-{n}", "gateway", region, n % 2) for n in range(gateways)]


def _tenants(source: random.Random, regions: list[str]) -> list[TenantFacts]:
    tenants = []
    for number in range(source.choice((2, 3))):
        link = "link-a" if number == 0 else source.choice(("link-a", "link-b"))
        uri, model = LINKS[link]
        policies: list[RegionQuorum] = ["all", "all", "local"]
        if len(regions) >= 3:
            policies += ["majority", "majority"]
        policy = "all" if model == "hyok" else source.choice(policies)
        here = regions if source.random() < 0.7 else source.sample(regions, 1)
        facts: dict[str, Any] = {"name": f"tenant-{number}", "link": link, "uri": uri}
        tenants.append(TenantFacts(**facts, regions=tuple(here), policy=policy, model=model))
    return tenants


def _timing(source: random.Random) -> Timing:
    lease, hyok = source.uniform(4, 10), source.uniform(6, 12)
    l1_lease = source.uniform(10, 25)
    return Timing(
        control_lease_s=lease,
        renew_every_s=lease * source.uniform(0.25, 0.45),
        partition_grace_s=source.uniform(hyok, 40),
        hyok_grace_s=hyok,
        pull_every_s=hyok * source.uniform(0.25, 0.45),
        l1_lease_s=l1_lease,
        probe_interval_s=(probe := l1_lease * source.uniform(0.25, 0.45)),
        hyok_l1_lease_s=max(2 * probe, 0.7 * l1_lease),
        probe_deadline_s=source.uniform(1, 4),
        settle_s=source.uniform(8, 20),
        clock_error=source.choice((0.001, 0.01)),
    )


def _weather(source: random.Random) -> Weather:
    if source.random() < 0.4:
        return Weather(delay_s=source.choice((0.001, 0.02)))
    return Weather(
        delay_s=source.choice((0.001, 0.005, 0.05)),
        late=source.choice((0.0, 0.005, 0.03)),
        late_s=source.choice((1.0, 6.0, 20.0)),
        loss=source.choice((0.0, 0.01, 0.05)),
        twice=source.choice((0.0, 0.02, 0.1)),
        reorder=source.random() < 0.5,
        pending_max=source.choice((2, 4096, 4096)),
    )


def _store(source: random.Random) -> Store:
    if source.random() < 0.4:
        return Store()
    return Store(
        delay_s=source.choice((0.001, 0.01, 0.1)),
        lost=source.choice((0.0, 0.02)),
        unheard=source.choice((0.0, 0.03)),
        late=source.choice((0.0, 0.02)),
        late_s=source.choice((2.0, 8.0, 20.0)),
        again=source.choice((0.0, 0.02)),
        pending_s=source.choice((0.0, 0.0, 0.05)),
        gap=source.choice((0.0, 0.02)),
    )


def _rates(
    source: random.Random, members: list[Member], regions: list[str], error: float
) -> dict[str, float]:
    """Clocks at the extremes as often as anywhere else: there the bounds are tight."""
    names = [one.name for one in members] + [f"client-{region}" for region in regions]
    ways = (1 - error, 1 + error, 1.0, None)
    drawn = {name: source.choice(ways) for name in (*names, *OPERATORS)}
    return {
        name: source.uniform(1 - error, 1 + error) if rate is None else rate
        for name, rate in drawn.items()
    }


def _faults(source: random.Random, lasts: float) -> list[Fault]:
    count = source.choice((0, 2, 4, 6, 9))
    kinds = source.sample(FAULTS, min(len(FAULTS), source.choice((2, 4, 8))))
    return sorted(
        (
            Fault(
                source.uniform(8, lasts),
                source.choice((0.5, 3.0, 12.0, 25.0)) * source.uniform(0.5, 1.5),
                source.choice(kinds),
                source.random(),
            )
            for _ in range(count)
        ),
        key=lambda fault: fault.at,
    )


def _aimed(
    source: random.Random, kills: list[Kill], tenants: list[TenantFacts], timing: Timing
) -> list[Fault]:
    """Faults that begin just before a kill, in a region of whom it kills."""
    faults = []
    for kill in kills:
        if source.random() < 0.6:
            lease = source.choice((timing.control_lease_s, timing.hyok_grace_s, timing.l1_lease_s))
            lasts = lease * source.uniform(1.0, 3.0) + 8
            at = kill.at - source.choice((0.0, 0.2, 2.0)) * source.random()
            region = source.choice(target(tenants, kill).regions)
            faults.append(Fault(at, lasts, source.choice(AIMED), source.random(), region))
    return faults


def _kills(source: random.Random, lasts: float) -> list[Kill]:
    kills: list[Kill] = []
    for _ in range(source.choice((1, 2, 3))):
        at, pick = source.uniform(10, lasts - 5), source.random()
        scope: Scope = source.choice(("tenant", "tenant", "link"))
        kills.append(_kill(source, at, pick, scope))
        if source.random() < 0.4:  # more about the same one, at nearly the same moment
            again = at + source.choice((0.0, 0.01, 1.0, 8.0)) * source.random()
            kills.append(_kill(source, min(again, lasts - 5), pick, scope))
    return sorted(kills, key=lambda kill: kill.at)


def _kill(source: random.Random, at: float, pick: float, scope: Scope) -> Kill:
    lift = source.choice((None, None, 0.5, 3.0, 12.0))
    return Kill(at, source.choice(OPERATORS), scope, pick, source.random(), lift)
