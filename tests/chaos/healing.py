"""After the last fault: everything runs and is joined again, and has to come back by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from kcm import Client, ClientContext
from kcm_schemas.codes import KcmError

from tests.chaos.history import History
from tests.chaos.operators import Operators
from tests.chaos.plant import Plant
from tests.chaos.proxy import Mode
from tests.chaos.traffic import CLOCK, SERVICE, Sealed, Stream

HEAL_S = 90.0
"""Seconds for everything to come back: the restarts, then a settling and the longest leases. A key
that flapped settles for longer."""
POLL_S = 0.3
BATCH = 256
OPEN_S = 30.0
ATTEMPTS = 2
"""Times that a part that was not answered is asked for again."""


async def heal(
    plant: Plant,
    operators: Operators,
    history: History,
    streams: list[Stream],
    tell: Callable[[str], None],
) -> None:
    """Undo all that might be left, lift what is held, and wait until everybody is served."""
    plant.links.set(lambda _: True, Mode.OPEN)
    for name in plant.names:
        plant.resume(name)
        plant.start(name)
    began = CLOCK.elapsed()

    async def ready() -> str:
        return ", ".join(name for name in plant.names if not plant.is_ready(name))

    async def agreed() -> str:
        await operators.lift_all()
        for region in history.regions:
            history.held[region] = await operators.held(region)
        first, *others = history.held.values()
        if any(held != first for held in others):
            return "the regions know different holds"
        left = [hold_id for hold_id, lifted in first.items() if not lifted]
        return f"{len(left)} holds are not lifted: {left[0][:8]}" if left else ""

    async def served() -> str:
        missing = [f"{s.tenant} in {s.region}" for s in streams if s.last_served < asked]
        return ", ".join(missing)

    for what, looks in (("not running", ready), ("holds", agreed), ("not served", served)):
        asked = CLOCK.elapsed()
        within_s = HEAL_S + history.settles_s
        problem = await _until(looks, began + within_s)
        tell(f"{what}: {problem or 'none'} after {CLOCK.elapsed() - began:.1f} s")
        if problem:
            history.unhealed.append(f"{what} {within_s:.0f} s after healing: {problem}")
    await _until(agreed, CLOCK.elapsed() + OPEN_S)


async def _until(looks: Callable[[], Awaitable[str]], until: float) -> str:
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
    opened = await client.decrypt(tenant, SERVICE, records, deadline_s=OPEN_S)
    for _ in range(ATTEMPTS):
        if opened.ok:
            break
        opened = await client.decrypt(tenant, SERVICE, records, deadline_s=OPEN_S)
    for one, value, code in zip(sealed, opened.values, opened.codes, strict=True):
        if value != one.plaintext:
            history.lost.append(f"{tenant} in {one.region}: {one.plaintext!r}: {code.value}")
