"""Steady traffic over many lease lengths, in virtual time: nobody hears that leases end.

Core and Gateway are the production classes with their kill switches; requests take their time on
the way, and each piece of work takes its own.
"""

import asyncio
from collections import Counter

import pytest
from kcm_gateway.envelope import Envelope
from kcm_gateway.keys.lease import RESERVE_PART
from kcm_schemas.codes import KcmError

from tests.fakes.virtual import settled
from tests.unit.switch.gateway_incarnation import GatewayIncarnation
from tests.unit.switch.statements import LINK, tenant

LEASE_S = 10.0
RENEWED_S = 7.0
"""A Core gives no less: its own lease, at the moment before it is renewed."""

WIRE_S = 0.003


class SlowEnvelope(Envelope):
    """Each piece of work advances the clock of its Gateway."""

    def __init__(self, gateway, *names):
        super().__init__(*names)
        self.gateway = gateway

    def seal_each(self, *of):
        self.gateway.clock.slept += self.gateway.work_s
        return super().seal_each(*of)

    def seal_shared(self, *of):
        self.gateway.clock.slept += self.gateway.work_s
        return super().seal_shared(*of)

    def open(self, *of):
        self.gateway.clock.slept += self.gateway.work_s
        super().open(*of)


class Slow(GatewayIncarnation):
    """Requests to a Core take ``wire_s`` there and back, and every piece of work ``work_s``."""

    wire_s = WIRE_S
    work_s = 0.0

    def __init__(self, system, name, core, **settings):
        super().__init__(system, name, core, **settings)
        self.codes = Counter()
        self.shortest = LEASE_S

    async def request(self, subject, body, timeout_s):
        await asyncio.sleep(self.wire_s)
        answer = await super().request(subject, body, timeout_s)
        await asyncio.sleep(self.wire_s)
        return answer

    def envelope_of(self, region, tenant, service):
        return SlowEnvelope(self, region, tenant, service)

    async def call(self, plains, scope):
        """Encrypt, then decrypt what came of it."""
        try:
            sealed = await self.engine.encrypt("acme", "crm", plains, dek_scope=scope)
            opened = await self.engine.decrypt("acme", "crm", sealed.values)
        except KcmError as error:
            self.codes[str(error)] += 1
            return
        assert opened.values == plains
        self.codes["ok"] += 1
        self.shortest = min(self.shortest, sealed.lease_s, opened.lease_s)


async def served(system, **settings):
    core = system.core("core-eu-1")
    await core.start(regions=False)
    await core.make(tenant())
    gateway = Slow(system, "gw-eu-1", core, **settings)
    gateway.learn(LINK, tenant())
    await gateway.start()
    await settled()
    return gateway


@pytest.mark.parametrize("cached", [0, 64])
@pytest.mark.parametrize(
    ("keys", "every_s", "work_s", "leases"),
    [
        (1, 1.0, 0.3, 60),  # one key of a batch that lives ten seconds
        (1, 7.9, 0.3, 60),
        (1, 1 / 26, 0.01, 12),  # a batch of 256 keys lasts just as long as its lease
        (40, 1 / 25, 0.002, 3),  # 1000 keys a second
    ],
)
async def test_nobody_hears_of_a_leases_end(system, keys, every_s, work_s, leases, cached):
    gateway = await served(system, cache_keys_max=cached)
    gateway.work_s = work_s
    plains = [bytes([n]) for n in range(keys)]
    scope = "batch" if keys == 1 else "record"
    loop = asyncio.get_running_loop()
    calls, end = 0, gateway.clock.elapsed() + leases * LEASE_S
    while gateway.clock.elapsed() < end:
        began = loop.time()
        await gateway.call(plains, scope)
        calls += 1
        await asyncio.sleep(max(0.0, every_s - (loop.time() - began)))
    assert gateway.codes == {"ok": calls}
    # Each answer leaves whoever asked what the reserve keeps for the work and the way back.
    assert gateway.shortest >= RESERVE_PART * RENEWED_S - 2 * (work_s + WIRE_S)


async def test_a_core_that_is_slow_keeps_nobody_waiting(system):
    """A refill has from the half to the reserve of the lease before anybody needs it."""
    gateway = await served(system)
    await gateway.call([b"x"], "batch")
    gateway.wire_s = 0.8  # as long as a Core gets to answer, nearly
    longest = 0.0
    for _ in range(600):
        began = gateway.clock.elapsed()
        await gateway.engine.encrypt("acme", "crm", [b"x"], dek_scope="batch")
        longest = max(longest, gateway.clock.elapsed() - began)
        await asyncio.sleep(0.31)
    assert longest == 0.0
