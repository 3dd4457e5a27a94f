"""After the last fault: everything runs and is joined again, and has to come back by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from kcm import Client, ClientContext
from kcm_schemas.codes import KcmError

from tests.chaos.history import History
from tests.chaos.journal import Journal
from tests.chaos.operators import Operators
from tests.chaos.plant import Plant
from tests.chaos.proxy import Mode
from tests.chaos.repair import Repair
from tests.chaos.traffic import CLOCK, SERVICE, Sealed, Stream

Look = Callable[[], Awaitable[str]]
Tell = Callable[[str], None]

HEAL_S = 90.0
"""Seconds for everything to come back: the restarts, then a settling and the longest leases. A key
that flapped settles for longer."""
POLL_S = 0.3
BATCH = 256
OPEN_S = 30.0
ATTEMPTS = 2
"""Times that a part that was not answered is asked for again."""


class _Looks:
    """What has to become true, each said as what is still wrong, or nothing."""

    def __init__(
        self,
        plant: Plant,
        operators: Operators,
        repair: Repair,
        history: History,
        streams: list[Stream],
        journal: Journal,
    ) -> None:
        self._journal = journal
        self._plant = plant
        self._operators = operators
        self._repair = repair
        self._history = history
        self._streams = streams

    async def ready(self) -> str:
        """Every process runs."""
        return ", ".join(name for name in self._plant.names if not self._plant.is_ready(name))

    async def repaired(self) -> str:
        """Regions whose brokers' disks went bad are provisioned and signed again."""
        harmed = {damage.region for damage in self._history.damages}
        left = [await self._repair.region(region) for region in sorted(harmed)]
        return ", ".join(filter(None, left))

    async def agreed(self) -> str:
        """No hold is left, and all regions know the same."""
        await self._operators.lift_all()
        held = self._history.held
        for region in self._history.regions:
            held[region] = await self._operators.held(region)
        first, *others = held.values()
        if any(held != first for held in others):
            return "the regions know different holds"
        left = [hold_id for hold_id, lifted in first.items() if not lifted]
        return f"{len(left)} holds are not lifted: {left[0][:8]}" if left else ""

    async def recorded(self, since_ms: int) -> str:
        """The Auditor has events of every instance."""
        emitters = [n for role in ("core", "gateway", "auditor") for n in self._plant.of_role(role)]
        return ", ".join(self._journal.unheard(emitters, since_ms))

    async def served(self, since: float) -> str:
        """Every tenant was served in every region."""
        missing = [f"{s.tenant} in {s.region}" for s in self._streams if s.last_served < since]
        return ", ".join(missing)


async def heal(
    plant: Plant,
    operators: Operators,
    repair: Repair,
    history: History,
    streams: list[Stream],
    journal: Journal,
    tell: Tell,
) -> None:
    """Undo all that might be left, lift what is held, and wait until everybody is served."""
    plant.links.set(lambda _: True, Mode.OPEN)
    for name in plant.names:
        plant.resume(name)
        plant.start(name)
    for server in plant.of_role("region"):
        await repair.runs(server)
    for server in sorted({damage.server for damage in history.damages}):
        await repair.server(server)  # one after the other: two at once would have nobody to copy
    looks = _Looks(plant, operators, repair, history, streams, journal)
    asked, asked_ms = CLOCK.elapsed(), _now_ms()
    await _wait_for(
        [
            ("not running", looks.ready),
            ("not repaired", looks.repaired),
            ("holds", looks.agreed),
            ("not served", lambda: looks.served(asked)),
            ("not recorded", lambda: looks.recorded(asked_ms)),
        ],
        history,
        tell,
    )
    await _until(looks.agreed, CLOCK.elapsed() + OPEN_S)


async def restart(
    plant: Plant,
    operators: Operators,
    repair: Repair,
    history: History,
    journal: Journal,
    tell: Tell,
) -> None:
    """End everything as a power cut would and start it: what is known now is known from disks."""
    journal.note()
    for name in plant.names:
        await plant.kill(name)
    for name in plant.names:
        plant.start(name)
    looks = _Looks(plant, operators, repair, history, [], journal)
    asked_ms = _now_ms()
    await _wait_for(
        [
            ("not running", looks.ready),
            ("not repaired", looks.repaired),
            ("holds", looks.agreed),
            ("not recorded", lambda: looks.recorded(asked_ms)),
        ],
        history,
        tell,
    )


async def _wait_for(wanted: list[tuple[str, Look]], history: History, tell: Tell) -> None:
    began = CLOCK.elapsed()
    within_s = HEAL_S + history.settles_s
    for what, looks in wanted:
        problem = await _until(looks, began + within_s)
        tell(f"{what}: {problem or 'none'} after {CLOCK.elapsed() - began:.1f} s")
        if problem:
            history.unhealed.append(f"{what} {within_s:.0f} s after healing: {problem}")


async def _until(looks: Look, until: float) -> str:
    """Look again and again until there is no problem; returns the one that is left."""
    while True:
        try:
            problem = await looks()
        except KcmError as error:
            problem = error.code.value
        if not problem or CLOCK.elapsed() > until:
            return problem
        await asyncio.sleep(POLL_S)


async def open_everything(context: ClientContext, history: History, streams: list[Stream]) -> None:
    """Decrypt every record that was ever made, and compare it."""
    for region in history.regions:
        async with Client.connect(context, region) as client:
            for stream in streams:
                if stream.region == region:
                    for start in range(0, len(stream.sealed), BATCH):
                        await _open(client, history, stream.sealed[start : start + BATCH])


async def _open(client: Client, history: History, sealed: list[Sealed]) -> None:
    tenant, records = sealed[0].tenant, [one.record for one in sealed]
    opened: list[bytes | KcmError] = []
    for _ in range(ATTEMPTS + 1):
        try:
            opened = [*(await client.decrypt(tenant, SERVICE, records, deadline_s=OPEN_S)).results]
        except KcmError as error:
            opened = [error] * len(sealed)
        if all(isinstance(value, bytes) for value in opened):
            break
    for one, value in zip(sealed, opened, strict=True):
        if value != one.plaintext:
            why = value.code.value if isinstance(value, KcmError) else "another value"
            history.lost.append(f"{tenant} in {one.region}: {one.plaintext!r}: {why}")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
