"""One run: a seed's plan is carried out, everything is healed, and then everything has to be well.

The first part ends after the plan's virtual seconds. Then the faults stop, operators lift what they
held, keys settle; within a bound every tenant is served in each of its regions, every region has
the same holds, and every record that was ever encrypted opens.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final

from kcm_killswitch.model.flap_damping import DAMPED_MAX

from tests.simulation.adopting import adopt
from tests.simulation.chaos import Chaos
from tests.simulation.drawing import draw
from tests.simulation.history import HoldFacts
from tests.simulation.loop import Runaway, Stuck
from tests.simulation.oracle import Violation
from tests.simulation.people import Client, Operator
from tests.simulation.plan import APPS, OPERATORS, Plan, Regrant, Relink
from tests.simulation.thief import Thief
from tests.simulation.world import PROBE_S, World

RUN_MAX_S: Final = 1000.0
"""Virtual seconds after which a run has failed to recover."""

KEPT_S: Final = 20.0
"""Seconds within which a disk that works again has to have what its Core knows."""

SERVED_MIN: Final = 5
"""Requests that a run has to serve: one that serves nothing says nothing."""


@dataclass(slots=True)
class Result:
    """What came of one seed."""

    seed: int
    failure: str = ""
    events: list[str] = field(default_factory=list)
    coverage: dict[str, int] = field(default_factory=dict)
    served: int = 0
    records: int = 0
    virtual_s: float = 0.0
    steps: int = 0
    cpu_s: float = 0.0


class Run:
    """Carries a plan out."""

    def __init__(self, plan: Plan) -> None:
        self.plan: Final = plan
        self.world: Final = World(plan)
        self.chaos: Final = Chaos(self.world)
        self.world.on_revived = self._ask_again
        self.clients: Final = {region: Client(self.world, region) for region in plan.regions}
        self.operators: Final = {name: Operator(self.world, name) for name in OPERATORS}

    async def until_complete(self) -> None:
        """Only start, go wrong, and wait until the first kill is complete, or the time is over."""
        loop, world, plan = self.world.loop, self.world, self.plan
        for name in world.members:
            loop.after(world.random.uniform(0, 2), world.start, name)
        self.chaos.schedule(plan.faults)
        (kill,) = plan.kills
        loop.spawn(self.operators[kill.operator].node, self._kill(kill))
        for _ in range(int(plan.lasts)):
            await asyncio.sleep(1)
            if any(hold.complete_at for hold in world.oracle.holds.values()):
                return

    async def main(self) -> None:
        """Start, go wrong, heal, and check."""
        loop, world, plan = self.world.loop, self.world, self.plan
        for name in world.members:
            loop.after(world.random.uniform(0, 2), world.start, name)
        self.chaos.schedule(plan.faults)
        loop.after(PROBE_S, world.probe)
        if plan.asks_s:
            loop.after(plan.asks_s, world.words.ask)
        moves = [
            loop.spawn(self.operators[change.operator].node, self._change(change))
            for change in (*plan.relinks, *plan.regrants)
        ]
        workers = [loop.spawn(client.node, client.work()) for client in self.clients.values()]
        if plan.thief:
            thief = Thief(world, plan.thief)
            loop.spawn(thief.node, thief.work())
        kills = [
            loop.spawn(self.operators[kill.operator].node, self._kill(kill)) for kill in plan.kills
        ]
        await asyncio.sleep(plan.lasts)
        self.chaos.heal()
        await asyncio.sleep(1)
        self._count()
        await adopt(world, self._recovery_s)
        for worker in workers:
            worker.cancel()
        await self._keep()
        await self._lift_all()
        await self._settle(moves)
        await self._recover()
        await self._agree()
        await self._open_all()
        if plan.asks_s:
            await world.words.settled()
        for task in kills:
            await task
        if sum(client.served for client in self.clients.values()) < SERVED_MIN:
            world.oracle.never_healed(7, "the run served next to nothing")

    async def _kill(self, kill: Any) -> None:
        await asyncio.sleep(kill.at)
        await self.operators[kill.operator].carry_out(kill)

    async def _change(self, change: Relink | Regrant) -> None:
        await asyncio.sleep(change.at)
        operator = self.operators[change.operator]
        if isinstance(change, Relink):
            await operator.relink(change)
        else:
            await operator.regrant(change)

    async def _settle(self, moves: list[Any]) -> None:
        """Every move is carried out, and operators end what nobody but they can end."""
        world, oracle = self.world, self.world.oracle
        _, late = await asyncio.wait(moves, timeout=self._recovery_s) if moves else ((), ())
        if late:
            oracle.never_healed(8, "a record was not accepted")
        operator = self.operators[OPERATORS[0]]
        for tenant in self.plan.tenants:
            links = oracle.links
            if tenant.name in world.set_back or any(
                links.unsettled(tenant.name, region) for region in tenant.regions
            ):
                move = operator.move(tenant, tenant.link)
                await self._signed(move, operator, tenant.name)
        for app in APPS:
            if world.apps.unsettled(app):
                await self._signed(operator.put_app(world.apps.next(app)), operator, app)

    async def _signed(self, work: Any, operator: Operator, name: str) -> None:
        done = self.world.loop.spawn(operator.node, work)
        _, late = await asyncio.wait([done], timeout=self._recovery_s)
        if late:
            self.world.oracle.never_healed(8, f"{name} has no record that counts")

    def _somebody(self, wanted: str) -> Operator:
        """An operator who is not retired: this one, if that is so."""
        gone = self.world.rosters.gone
        acting = {name: one for name, one in self.operators.items() if name not in gone}
        return acting.get(wanted) or next(iter(acting.values()))

    def _ask_again(self, facts: HoldFacts) -> None:
        """A lift counts no more: somebody who acts wants to see the kill complete again."""
        operator, raw = self._somebody(""), self.world.oracle.raw[facts.hold_id]
        self.world.loop.spawn(operator.node, operator.watch(facts.hold_id, raw, facts.origin))

    async def _keep(self) -> None:
        """Every Core has on its disk what it knows of holds."""
        until = self.world.loop.now + KEPT_S
        while wrong := self.world.losing.unkept():
            if self.world.loop.now > until:
                self.world.oracle.never_healed(6, "; ".join(wrong[:5]))
                return
            await asyncio.sleep(1)

    async def _lift_all(self) -> None:
        """Operators lift what they still hold; what keys caused lifts itself."""
        oracle = self.world.oracle
        for facts in list(oracle.holds.values()):
            lost = facts.hold_id in self.world.losing.lifts
            if facts.cause == "operator" and (facts.lifted_at is None or lost):
                operator = self._somebody(facts.issuer)
                held = oracle.raw[facts.hold_id]
                await self.world.loop.spawn(operator.node, operator.lift(held, facts.origin))

    async def _recover(self) -> None:
        """Every tenant is served in each of its regions, for all applications, in the bound."""
        loop, waiting = self.world.loop, ["everybody"]
        until = loop.now + self._recovery_s
        while waiting:
            waiting = []
            for (region, client), tenant, app in product(
                self.clients.items(), self.plan.tenants, APPS
            ):
                if region in tenant.regions and not await self._as(
                    client, client.encrypt(tenant, app)
                ):
                    why = client.refusals.get(tenant.name)
                    waiting.append(f"{app} for {tenant.name} in {region} ({why})")
            if waiting and loop.now > until:
                self.world.oracle.never_healed(7, f"not served again: {', '.join(waiting)}")
                return
            await asyncio.sleep(1)

    async def _agree(self) -> None:
        """All regions have the same holds within a bound: invariant 6."""
        until, wrong = self.world.loop.now + 60, ["nobody asked"]
        while wrong:
            wrong = self.world.rosters.differing()
            wrong = wrong or self.world.oracle.agree(self._views()) + self._registries()
            if wrong and self.world.loop.now > until:
                self.world.oracle.never_healed(6, "; ".join(wrong[:5]))
                return
            await asyncio.sleep(1)

    def _registries(self) -> list[str]:
        """Instances that know another registry than others of their region, or not what counts."""
        wrong, seen = [], dict[str, bytes]()
        for name, one in sorted(self.world.running.items()):
            region, links = one.who.region, self.world.oracle.links
            if self.plan.registry and one.registry.digest != seen.setdefault(
                region, one.registry.digest
            ):
                wrong.append(f"{name} knows another registry")
            wrong += [
                f"{name} has {tenant.name} on {one.registry.links_of(tenant.name)}"
                for tenant in self.plan.tenants
                if region in tenant.regions
                and set(one.registry.links_of(tenant.name)) != links.of(tenant.name, region)
            ]
        return wrong

    def _views(self) -> dict[str, dict[bytes, bool]]:
        world = self.world
        views = {
            name: world.oracle.judgement.seen(one.revocations.holds)
            for name, one in sorted(world.running.items())
        }
        for region, stream in world.streams.items():
            views[f"stream {region}"] = world.oracle.judgement.read(stream.entries())
        return views

    async def _open_all(self) -> None:
        """Every record opens: invariant 4. A hold of a key that came late may delay that."""
        loop = self.world.loop
        until = loop.now + self._recovery_s
        for client in self.clients.values():
            for record in client.records:
                while not await self._as(client, client.decrypt(record)):
                    if loop.now > until:
                        text = f"a record of {record.tenant} does not open"
                        self.world.oracle.never_healed(4, text)
                        return
                    await asyncio.sleep(1)

    @property
    def _recovery_s(self) -> float:
        """Seconds within which everything has to be well after everything was mended."""
        timing = self.plan.timing
        flapped = Counter(
            (facts.origin, facts.target)
            for facts in self.world.oracle.holds.values()
            if facts.cause == "l1"
        )
        worst = min(DAMPED_MAX, 2 ** (max(flapped.values(), default=1) - 1))
        return worst * timing.settle_s + timing.l1_lease_s + timing.control_lease_s + 60

    async def _as(self, client: Client, work: Any) -> bool:
        return await self.world.loop.spawn(client.node, work)

    def _count(self) -> None:
        """Races that brokers counted."""
        saw, network = self.world.coverage.saw, self.world.network.counts
        saw("a dropped callback", network["callback dropped"])
        for stream in self.world.streams.values():
            saw("a lost acknowledgement", stream.counts["acknowledgement lost"])
            saw("a put stored late", stream.counts["put late"])
            saw("a put that conflicts with what nobody can read", stream.counts["conflict 10164"])
            saw("a put that conflicts with itself", stream.counts["put twice"])
            saw("a proposal that is never stored", stream.counts["proposal dropped"])
        for disk in self.world.disks.values():
            saw("a write that a disk refuses", disk.failed)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Log nothing meanwhile: in a simulated world faults are what is asked for."""
    heard = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(heard)


def run(
    seed: int,
    variant: str = "",
    excuse_in_flight: bool = False,
    focus: str = "",
    within_s: float = RUN_MAX_S,
) -> Result:
    """Carry out one seed, which has to end within so many virtual seconds."""
    began, result = time.process_time(), Result(seed)
    gc.disable()
    made = Run(draw(seed, variant, excuse_in_flight=excuse_in_flight, focus=focus))
    loop, world = made.world.loop, made.world
    try:
        with quiet():
            loop.run(made.main(), within_s)
        if loop.faults:
            result.failure = f"nobody caught {_describe(loop.faults[0])}"
    except (Violation, Stuck, Runaway) as error:
        result.failure = f"{type(error).__name__}: {error}"
    finally:
        result.events = world.oracle.events.last() if result.failure else []
        result.coverage = dict(world.coverage)
        result.served = sum(client.served for client in made.clients.values())
        result.records = sum(len(client.records) for client in made.clients.values())
        result.virtual_s, result.steps = loop.now, loop.steps
        loop.close()
        gc.enable()
        result.cpu_s = time.process_time() - began
    return result


def _describe(fault: dict[str, Any]) -> str:
    error = fault.get("exception")
    return f"{error!r} ({fault.get('message')}: {fault.get('task')})"
