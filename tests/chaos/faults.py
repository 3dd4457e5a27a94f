"""What each fault of a schedule does, and how it is undone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from kcm_schemas import subjects

from tests.chaos import disks
from tests.chaos.disks import Harm
from tests.chaos.history import Damage, Flip, History
from tests.chaos.journal import Journal
from tests.chaos.links import Link
from tests.chaos.operators import Operators
from tests.chaos.plant import Plant
from tests.chaos.proxy import Mode
from tests.chaos.repair import Repair
from tests.chaos.schedule import ALONE, Fault
from tests.chaos.traffic import CLOCK


class Faults:
    """Does one fault after the other, or several at once: from its beginning to its undoing."""

    def __init__(
        self,
        plant: Plant,
        operators: Operators,
        history: History,
        repair: Repair,
        journal: Journal,
    ) -> None:
        self._journal = journal
        self._repair = repair
        self._plant = plant
        self._operators = operators
        self._history = history
        self.done: list[tuple[Fault, float, float]] = []
        """Faults with the instants at which they began and were undone."""

    async def run(self, fault: Fault) -> None:
        """Do a fault and undo it. What is cancelled is undone too."""
        began = CLOCK.elapsed()
        try:
            await self._do(fault)
        finally:
            self.done.append((fault, began, CLOCK.elapsed()))

    async def _do(self, fault: Fault) -> None:
        kind, target, seconds = fault.kind, fault.target, fault.seconds
        match kind:
            case "kill-tenant":
                region = fault.how.removesuffix(ALONE)
                alone = region != fault.how
                await self._operators.kill("tenant", target, region, seconds, alone=alone)
            case "kill-link":
                await self._operators.kill("link", target, fault.how, seconds)
            case "key":
                await self._key(target, fault.how, seconds)
            case "kill-core" | "kill-gateway" | "kill-broker" | "kill-backbone":
                await self._plant.kill(target)
                await asyncio.sleep(seconds)
                self._plant.start(target)
            case "pause-core" | "pause-gateway" | "pause-broker":
                await self._pause(target, seconds)
            case "cut-backbone" | "cut-region" | "cut-node" | "isolate-node":
                await self._cut(_links_of(self._plant, kind, target), Mode(fault.how), seconds)
            case "roll-back":
                await self._turn_back(target, seconds)
            case "remove-node":
                await self._remove(target, Mode(fault.how), seconds)
            case _ if fault.harm is not None:
                await self._harm(target, fault.harm, seconds)
            case "restart-everything":
                await self._restart_everything(seconds)
            case _:
                raise ValueError(kind)

    async def _key(self, link: str, state: str, seconds: float) -> None:
        at, at_ms = CLOCK.elapsed(), _now_ms()
        self._plant.flip_key(link, state)
        flipped = CLOCK.elapsed()
        try:
            await asyncio.sleep(seconds)
        finally:
            ends, ends_ms = CLOCK.elapsed(), _now_ms()
            self._plant.flip_key(link, "enabled")
            self._history.flips.append(Flip(link, state, flipped, at_ms, ends, ends_ms))
            assert at <= flipped

    async def _pause(self, name: str, seconds: float) -> None:
        self._plant.pause(name)
        try:
            await asyncio.sleep(seconds)
        finally:
            self._plant.resume(name)

    async def _cut(self, concerns: Callable[[Link], bool], mode: Mode, seconds: float) -> None:
        self._plant.links.set(concerns, mode)
        try:
            await asyncio.sleep(seconds)
        finally:
            self._plant.links.set(concerns, Mode.OPEN)

    async def _turn_back(self, server: str, seconds: float) -> None:
        """Copy a broker's disk now, and bring that copy back after so many seconds."""
        await self._plant.kill(server)
        self._plant.copy_disk(server)
        self._plant.start(server)
        await asyncio.sleep(seconds)
        await self._plant.kill(server)
        self._plant.turn_back_disk(server)
        self._plant.start(server)

    async def _harm(self, server: str, harm: Harm, seconds: float) -> None:
        """Harm a broker's disk while it is down, let it run like that, and repair it.

        Every second time nobody notices, but for what keeps a server from starting: a replica that
        lacks messages stays until the end.
        """
        if harm.act == "roll-back":
            await self._stop(server, orderly=harm.orderly)
            self._plant.copy_disk(server)
            self._plant.start(server)
            await asyncio.sleep(seconds / 2)
        if harm.act == "forget":
            await self._repair.change(self._plant.region_of(server), harm.stream)
        self._journal.note()
        await self._stop(server, orderly=harm.orderly)
        earlier = self._plant.copy(server) if harm.act == "roll-back" else None
        changed = disks.apply(self._plant.store(server), harm, earlier)
        if changed:
            region = self._plant.region_of(server)
            self._history.damages.append(Damage(region, CLOCK.elapsed(), server, str(harm)))
            gone = harm.act == "forget" and harm.stream == subjects.AUDIT_STREAM
            if gone and len(self._plant.nodes(region)) == 1:
                self._history.audit_replaced.append(region)
        self._plant.start(server)
        await asyncio.sleep(seconds)
        await self._repair.runs(server)
        if harm.noticed:
            await self._repair.server(server)
            await self._repair.region(self._plant.region_of(server))

    async def _stop(self, server: str, *, orderly: bool) -> None:
        await (self._plant.end(server) if orderly else self._plant.kill(server))

    async def _remove(self, node: str, mode: Mode, seconds: float) -> None:
        """Remove a node from its cluster while it is cut off, and start it anew afterwards."""
        links = _links_of(self._plant, "isolate-node", node)
        self._plant.links.set(links, mode)
        try:
            region = self._plant.region_of(node)
            by = next(other for other in self._plant.nodes(region) if other != node)
            await self._repair.remove(by, node)
            await asyncio.sleep(seconds)
        finally:
            self._plant.links.set(links, Mode.OPEN)
        await self._plant.kill(node)
        self._plant.start(node)

    async def _restart_everything(self, seconds: float) -> None:
        for name in self._plant.names:
            await self._plant.kill(name)
        await asyncio.sleep(seconds)
        for name in self._plant.names:
            self._plant.start(name)


def _links_of(plant: Plant, kind: str, target: str) -> Callable[[Link], bool]:
    match kind:
        case "cut-backbone":
            return lambda link: link[1] == "backbone"
        case "cut-region":
            return lambda link: link[1] == "backbone" and plant.region_of(link[0]) == target
        case "cut-node":
            return lambda link: target in link and link[1] != "backbone"
        case _:
            return lambda link: target in link


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
