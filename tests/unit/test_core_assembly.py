"""What the composition of a Core connects: a line that is missing there would show nowhere else."""

import asyncio

from kcm_schemas.l1 import L1State

from tests.unit.core_rig import LINK, World


async def test_another_registry_that_a_core_shows_is_compared(tmp_path):
    core = await World(tmp_path).core().made()
    await core.keeper.round()
    assert not core.keeper.comparing
    core.switch.registry_differs()
    assert core.keeper.comparing


async def test_a_purge_ends_the_admission_of_the_open_keys(tmp_path):
    core = await World(tmp_path).core().made()
    await core.loader.ring("acme")
    assert core.admission.live("acme", core.world.clock.elapsed())
    assert core.purge("acme") > 0
    assert core.vault.ring("acme") is None
    assert not core.admission.is_open("acme")


async def test_a_refusal_after_the_monitors_end_is_broadcast(tmp_path):
    """An unseal may outlast the drain: its refusal still concerns every region."""
    core = await World(tmp_path).core().made()
    core.watch.close()
    core.holds.place(LINK.link, L1State.DISABLED)
    for _ in range(5):
        await asyncio.sleep(0)
    assert core.revocations.killed("acme")
    assert len(core.switch.told) == 1
