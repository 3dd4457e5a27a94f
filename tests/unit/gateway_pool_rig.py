"""A pool of data keys, and a Core that wraps by numbering."""

import asyncio

from kcm_gateway.keys.lease import Lease
from kcm_gateway.keys.pool import KeyPool
from kcm_keymem.random import SystemKeyRandomness
from kcm_killswitch.model.admission import Permit
from kcm_killswitch.model.control_lease import EXPIRED, FOREVER
from kcm_schemas.codes import Code, KcmError

from tests.fakes.bus import Clock
from tests.unit.gateway_rig import WatchedBlocks

LEASE_S = 10.0


class Core:
    """Wraps by numbering; ``gate`` holds answers, ``error`` is raised instead."""

    def __init__(self, clock):
        self.clock = clock
        self.gate = asyncio.Event()
        self.gate.set()
        self.error = None
        self.sizes = []
        self.wrapped = 0
        self.version = 1
        self.lease_s = LEASE_S

    async def wrap(self, tenant, service, purpose, keys):
        self.sizes.append(len(keys) // 32)
        sent = self.clock.elapsed()
        until = sent + self.lease_s
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        blobs = []
        for _ in range(len(keys) // 32):
            self.wrapped += 1
            blobs.append(self.wrapped.to_bytes(72, "big"))
        return Lease(self.version, sent, until), b"".join(blobs)


class Rig:
    """A pool of the tenant ``acme``, whose operations ``generation`` and ``killed`` decide."""

    def __init__(self, keys_max=8192, clock=None):
        self.clock, self.blocks = clock or Clock(), WatchedBlocks()
        self.generation = 0
        self.killed = False
        self.core = Core(self.clock)
        self.pool = KeyPool(
            "acme", "crm", core=self.core, recheck=self.recheck, blocks=self.blocks,
            clock=self.clock, randomness=SystemKeyRandomness(), keys_max=keys_max,
        )  # fmt: skip

    def recheck(self, permit):
        if self.killed or permit.generation != self.generation:
            raise KcmError(Code.TENANT_KILLED)
        return FOREVER

    def take(self, count, lease_until=EXPIRED):
        """As an operation that was admitted just now."""
        return self.pool.take(Permit("acme", self.generation, FOREVER), count, lease_until)

    def purge(self):
        self.generation += 1
        self.blocks.purge("acme")
        self.pool.clear()

    async def quiet(self):
        while self.pool.refills:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def end(self):
        self.core.gate.set()
        await self.quiet()
        self.purge()


def taken(segments):
    """Each key with its wrapped form, as they are used."""
    out = []
    for segment in segments:
        with segment.use() as keys:
            for key, (blob,) in zip(keys.each, segment.blobs(), strict=True):
                out.append((bytes(key), bytes(blob)))
    return out
