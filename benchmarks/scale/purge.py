"""What a Gateway's purge of one tenant takes before the receipt, by how much the tenant holds.

A Gateway's engine in this process, and the production way of a hold into an incarnation, as in
``benchmarks.kill.purge``. Sizes take turns, so each is compared to the smallest one of its round.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from kcm_gateway.keys.pool import BATCH
from kcm_gateway.keys.release import AFTER_S

from benchmarks.kill.purge import (
    House,
    Making,
    make_gateway,
    make_trusted,
)
from benchmarks.kill.sample import Figure
from benchmarks.measure import percentile

PART: Final = "a Gateway's purge of one tenant"

BLOCKS: Final = (2, 100, 1_000, 4_000)
"""Blocks of 256 keys that the tenant's pools hold."""

EACH: Final = 2
"""Blocks of a pool from which one key was taken: it asks for more at once."""

PURGE_MS: Final = 5.0
"""Milliseconds until the receipt may be sent, whatever the tenant holds."""


async def measure(blocks: Sequence[int], rounds: int) -> list[Figure]:
    """Kill the tenant of each size in turn; what counts is the time until ``learn`` returns.

    Processor time: on a shared machine the wall clock has others' turns in it.
    """
    directory = Path(tempfile.mkdtemp(prefix="kcm-bench-"))
    try:
        making = make_trusted(directory)
        took: dict[int, list[float]] = {count: [] for count in blocks}
        houses = {count: _house(making, count) for count in blocks}
        for house in houses.values():
            await house.fill(1, 0)
        for _ in range(rounds):
            for count, house in houses.items():
                took[count].append(await house.kill())
                await house.reopen()
        for house in houses.values():
            house.close()
    finally:
        shutil.rmtree(directory)
    figures = []
    for count in blocks:
        median = 1e3 * percentile(took[count], 50)
        label = f"{count} blocks, {count * BATCH} keys"
        figures += [
            Figure(PART, f"{label}: median", median, "ms", PURGE_MS),
            Figure(PART, f"{label}: maximum", 1e3 * max(took[count]), "ms"),
        ]
    return figures


class _Filled(House):
    """A process whose victim has many services."""

    keys_min = 0

    async def kill(self) -> float:
        """Seconds of processor from the hold's arrival to the moment a receipt may be sent."""
        held, lift = self.hold_and_lift("tenant")
        started = time.process_time()
        record = self.learning.learn(held)
        took = time.process_time() - started
        receipt = self.learning.receipt(record.hold.id)
        if receipt is None or receipt.keys < self.keys_min:
            raise AssertionError("the purge found fewer keys than there were")
        self.learning.learn(lift)
        return took


def _house(making: Making, blocks: int) -> _Filled:
    services = blocks // EACH
    gateway = make_gateway(making)

    async def reopen(tenant: str) -> None:
        for number in range(services):
            await gateway.encrypt(tenant, f"s{number}", [b""])
        await asyncio.sleep(AFTER_S)  # what the pools ask for ahead, and what a purge left

    house = _Filled(making, gateway.purge, reopen, gateway.close)
    house.keys_min = blocks * BATCH
    return house
