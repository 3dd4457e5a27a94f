"""What an operator does in a region where no Core has a baseline of its registry."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kcm_core.registry.stores import PREFIX
from kcm_schemas.audit import EventType

from tests.simulation.core import SimCore
from tests.simulation.registry import Bucket

if TYPE_CHECKING:
    from tests.simulation.world import World


async def adopt(world: World, within_s: float) -> None:
    """Where no Core remembers, an operator restores the second store, looks, and adopts."""
    loop = world.loop
    for region, bucket in world.buckets.items():
        until = loop.now + within_s
        while not any(core.remembers for core in world.cores(region)):
            bucket.directory.restore()
            for core in world.cores(region):
                if core.ready and core.keeper is not None:
                    core.keeper.compare()
                    await asyncio.sleep(1)
                    await loop.spawn(core.node, _adopt(core, bucket))
                    break
            if loop.now > until:
                world.oracle.never_healed(8, f"no Core of {region} has a baseline")
                return
            await asyncio.sleep(0.5)


async def _adopt(core: SimCore, bucket: Bucket) -> None:
    """An operator adopts what a Core knows, if it is all that lies in the second store."""
    heads = bucket.directory.heads(PREFIX)
    keys = {tuple(name.removeprefix(PREFIX).split(".")): head for name, head in heads.items()}
    if all(core.registry.revision(key) >= head for key, head in keys.items()):
        parts = core.registry_parts
        if parts is not None:
            await parts.baseline.begin(EventType.REGISTRY_ADOPTED, parts.baseline.digest)
            parts.keeper.compare()
