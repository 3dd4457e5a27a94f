"""Opening roots: once for everybody, never across a kill, and never for too many at once."""

import asyncio
import gc

import pytest
from kcm_core.keys.loader import WAITING_MAX
from kcm_core.providers.state import L1State
from kcm_core.unsealer.port import UnsealResult
from kcm_killswitch.model.hold_set import HoldState
from kcm_schemas.codes import Code
from kcm_schemas.registry import Link

from tests.audit_rig import until
from tests.unit.core_rig import LINK, TENANT, URI
from tests.unit.refusals import refused
from tests.unit.trust_rig import hold


class Gate:
    """An L1 that answers when it is told to."""

    def __init__(self, unsealer):
        self.open = asyncio.Event()
        self.entered = asyncio.Semaphore(0)
        unsealer.hook = self

    async def __call__(self, operation, uri):
        self.entered.release()
        await self.open.wait()

    async def reached(self):
        """Until one more operation is under way."""
        await self.entered.acquire()


def unwraps(world):
    return [call for call in world.unsealer.calls if call[0] == "unwrap"]


async def test_whoever_asks_at_the_same_time_waits_for_one_unseal(world):
    core = await world.core().made()
    before = len(unwraps(world))
    gate = Gate(world.unsealer)
    asking = [asyncio.create_task(core.loader.ring("acme")) for _ in range(10)]
    await gate.reached()
    gate.open.set()
    rings = await asyncio.gather(*asking)
    assert len(unwraps(world)) == before + 1
    assert all(ring is core.vault.ring("acme") for ring in rings)
    assert await core.loader.ring("acme") is rings[0]


async def test_a_kill_during_an_unseal_leaves_nothing_open(world):
    core = await world.core().made()
    gate = Gate(world.unsealer)
    asking = asyncio.create_task(core.loader.service_key("acme", "crm", 0))
    await gate.reached()
    core.kill()
    gate.open.set()
    assert await refused(asking) is Code.TENANT_KILLED
    assert core.vault.open_tenants == []
    assert await refused(core.loader.ring("acme")) is Code.TENANT_KILLED


async def test_a_kill_and_its_lift_during_an_unseal_leave_nothing_of_it_open(world):
    """And who asks after the lift waits for an unseal that began after it."""
    core = await world.core().made()
    before = len(unwraps(world))
    gate = Gate(world.unsealer)
    early = asyncio.create_task(core.loader.ring("acme"))
    await gate.reached()
    core.kill()
    core.lift()
    late = asyncio.create_task(core.loader.ring("acme"))
    await gate.reached()
    gate.open.set()
    assert await refused(early) is Code.TENANT_UNAVAILABLE
    ring = await late
    assert ring is core.vault.ring("acme")
    assert ring.generation == core.revocations.generation("acme")
    assert len(unwraps(world)) == before + 2


async def test_a_ring_that_missed_its_purge_is_not_used_again(world):
    core = await world.core().made()
    ring = await core.loader.ring("acme")
    core.revocations.learn(HoldState(hold(), b"raw"))  # nothing purges for it
    core.lift()
    again = await core.loader.ring("acme")
    assert again is not ring
    assert ring.purged


async def test_a_hanging_key_takes_up_a_bounded_number_of_requests(world):
    core = await world.core().made()
    gate = Gate(world.unsealer)
    asking = [asyncio.create_task(core.loader.ring("acme")) for _ in range(WAITING_MAX)]
    await gate.reached()
    assert await refused(core.loader.ring("acme")) is Code.BUSY
    gate.open.set()
    await asyncio.gather(*asking)
    assert await core.loader.ring("acme")
    assert core.loader.waiting == {}
    assert core.loader.opening == 0


async def test_who_stops_waiting_stops_nobody_else(world):
    core = await world.core().made()
    gate = Gate(world.unsealer)
    first = asyncio.create_task(core.loader.ring("acme"))
    second = asyncio.create_task(core.loader.ring("acme"))
    await gate.reached()
    first.cancel()
    gate.open.set()
    assert await second is core.vault.ring("acme")
    assert first.cancelled()
    assert core.loader.waiting == {}


async def test_a_failure_that_nobody_waits_for_any_more_is_silent(world, caplog):
    core = await world.core().made()
    gate = Gate(world.unsealer)
    world.unsealer.key(URI).state = L1State.DISABLED
    asking = asyncio.create_task(core.loader.ring("acme"))
    await gate.reached()
    asking.cancel()
    gate.open.set()
    await until(lambda: not core.loader.opening)
    gc.collect()
    assert "never retrieved" not in caplog.text
    assert core.vault.open_tenants == []


REFUSED = [L1State.DISABLED, L1State.FORBIDDEN, L1State.PENDING_DELETION, L1State.DELETED]


@pytest.mark.parametrize("state", REFUSED)
async def test_a_key_that_refuses_kills_what_it_opened(world, state):
    core = await world.core().made()
    await core.loader.ring("acme")
    core.purge("acme")
    world.unsealer.key(URI).state = state
    assert await refused(core.loader.ring("acme")) is Code.TENANT_KILLED
    (record,) = core.revocations.active("acme")
    assert (record.hold.cause, record.hold.scope, record.hold.target) == ("l1", "link", LINK.link)
    world.unsealer.key(URI).state = L1State.ENABLED
    assert await refused(core.loader.ring("acme")) is Code.TENANT_KILLED


@pytest.mark.parametrize("state", [L1State.UNREACHABLE, L1State.INVALID, L1State.FORBIDDEN])
async def test_without_the_customers_key_a_tenant_stays_closed(world, state):
    """Forbidden to a Core that never was allowed: that one has the wrong credentials."""
    await world.core().made()
    core = world.core("core-eu-2")
    core.learn()
    world.unsealer.key(URI).state = state
    assert await refused(core.loader.ring("acme")) is Code.TENANT_UNAVAILABLE
    assert not core.revocations.killed("acme")
    world.unsealer.key(URI).state = L1State.ENABLED
    assert await core.loader.ring("acme")


async def test_a_lying_l1_opens_nothing_and_is_recorded(world):
    core = await world.core().made()

    async def lies(uri, blob, context, mechanism, out, **_):
        out[:] = bytes(range(72))
        return UnsealResult(key_version="1", principal="liar")

    core.purge("acme")
    world.unsealer.unwrap_into = lies
    assert await refused(core.loader.ring("acme")) is Code.TAMPERED
    assert core.vault.open_tenants == []
    assert core.events[-1][1]["code"] is Code.TAMPERED
    assert "key.incident" in [kind for kind, _ in core.events]
    assert not core.revocations.killed("acme")


async def test_who_is_not_registered_here_is_unknown(world):
    core = await world.core().made()
    assert await refused(core.loader.ring("nobody")) is Code.UNKNOWN_TENANT
    core.learn(TENANT.model_copy(update={"revision": 2, "regions": ["us"]}))
    assert await refused(core.loader.ring("acme")) is Code.UNKNOWN_TENANT


async def test_a_tenant_on_another_link_than_its_root_stays_closed(world):
    core = await world.core().made()
    core.learn(Link(link="other", revision=1, uri="softkey:/keys/other", model="byok"))
    core.learn(TENANT.model_copy(update={"revision": 2, "link": "other"}))
    assert await refused(core.loader.ring("acme")) is Code.TENANT_UNAVAILABLE


async def test_services_and_versions_that_do_not_exist(world):
    core = await world.core().made()
    assert await refused(core.loader.service_key("acme", "hr", 0)) is Code.UNKNOWN_SERVICE
    assert await refused(core.loader.service_key("acme", "crm", 2)) is Code.KEY_DESTROYED
    key = await core.loader.service_key("acme", "crm", 0)
    assert key == await core.loader.service_key("acme", "crm", 1)
    assert core.loader.is_open("acme", "crm", 0)
    core.kill(hold(scope="link", target=LINK.link))
    assert not core.loader.is_open("acme", "crm", 0)
