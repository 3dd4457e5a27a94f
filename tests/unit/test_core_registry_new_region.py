"""A new region begins with an empty registry, and only where nothing was ever stored."""

import shutil

import pytest
from kcm_core.registry.floors import Floors
from kcm_core.registry.stores import PREFIX
from kcm_killswitch.model.registry_lease import NO_BASELINE
from kcm_schemas.codes import Code

from tests.audit_rig import until
from tests.unit.admin_requests import put, put_all
from tests.unit.core_rig import LINK
from tests.unit.registry_rig import (
    BUCKET,
    FULL,
    NEWER,
    TENANT_KEY,
    adopt,
    emitted,
    floors_of,
    fresh,
    kept,
    served,
)

pytestmark = pytest.mark.usefixtures("recovery_at_once")


def _raise(error):
    async def fail(*_, **__):
        raise error

    return fail


async def test_an_empty_registry_is_a_new_regions(world):
    core = await fresh(world, "core-eu")
    await core.joining.start()
    assert core.baseline.present
    assert not Floors(floors_of(world, "core-eu")).items()
    assert len(emitted(core, "registry.begun")) == 1
    assert await put_all(core) == [Code.OK] * 3
    assert served(core) == (Code.OK, "")
    again = world.core("core-eu", remembers=False)
    assert again.baseline.present
    core.keeper.close()


@pytest.mark.parametrize("where", ["bucket", "deleted", "second store"])
async def test_what_nobody_can_believe_is_no_new_region(world, where):
    """By the next roster it may be believed."""
    if where == "second store":
        (world.directory / f"{PREFIX}tenant.acme").mkdir()
        (world.directory / f"{PREFIX}tenant.acme" / f"{1:020d}").write_bytes(b"junk")
    else:
        data = b"junk" if where == "bucket" else b""
        world.bus.stream.stored[TENANT_KEY] = (1, data)
    core = await fresh(world)
    await core.joining.start()
    assert not core.baseline.present
    world.bus.stream.stored.clear()  # what is emptied later is no new region, either
    for place in world.directory.iterdir():
        shutil.rmtree(place)
    await core.joining.attempt()
    assert not floors_of(world).exists()
    core.joining.close()
    core.keeper.close()


async def test_an_empty_registry_is_no_new_region_where_a_core_remembers_records(world):
    one = await kept(world)
    await one.joining.start()
    world.bus.stream.stored.clear()
    for place in world.directory.iterdir():
        shutil.rmtree(place)
    core = await fresh(world)
    await core.joining.start()
    assert not core.baseline.present
    for subscription in list(one.region_bus.subscriptions):
        one.region_bus.subscriptions.remove(subscription)  # it is gone, with what it knew
    await core.joining.attempt()
    assert not core.baseline.present
    core.joining.close()
    core.keeper.close()


async def test_a_full_disk_in_a_new_region_is_said_and_tried_again(world, monkeypatch):
    core = await fresh(world, "core-eu")
    with monkeypatch.context() as patch:
        patch.setattr("kcm_core.registry.baseline.RegistryBaseline.begin", _raise(FULL))
        await core.joining.start()
    assert "make room in its state_dir" in core.joining.waits
    await until(lambda: core.baseline.present)
    core.keeper.close()


def hide(world):
    """Machines and bucket are new, and the second store is not mounted; returns where it is."""
    for subject in [one for one in world.bus.stream.stored if one.startswith(BUCKET)]:
        del world.bus.stream.stored[subject]
    world.bus.stream.sequence = 0
    hidden = world.directory.with_name("hidden")
    world.directory.rename(hidden)
    world.directory.mkdir()
    return hidden


def mount(world, hidden):
    shutil.rmtree(world.directory)
    hidden.rename(world.directory)


async def begun(world):
    core = await fresh(world)
    await core.joining.start()
    assert core.baseline.present
    assert emitted(core, "registry.begun")
    return core


async def is_dark(world, core, caplog):
    await until(lambda: not core.baseline.present and not core.region_bus.subscriptions)
    assert served(core) == (Code.UNAVAILABLE, NO_BASELINE)
    assert not floors_of(world).exists()
    assert "absent at the start" in caplog.text
    assert emitted(core, "registry.forgotten")
    assert await put(core, LINK) is Code.UNAVAILABLE


async def test_a_region_that_began_before_its_second_store_was_there_goes_dark(world, caplog):
    (await kept(world)).keeper.close()
    hidden = hide(world)
    core = await begun(world)
    mount(world, hidden)
    core.keeper.compare()
    await is_dark(world, core, caplog)
    await until(lambda: core.registry.tenant("acme") is not None)
    assert served(core) == (Code.UNAVAILABLE, NO_BASELINE)
    assert not [
        one for one in world.bus.stream.stored if one.startswith(BUCKET)
    ]  # and nothing of it is given to the others
    await until(lambda: core.joining.waits.startswith("no Core of the region"))
    assert (await adopt(core, core.baseline.digest))[0] is Code.OK
    assert served(core) == (Code.OK, "")
    core.joining.close()
    core.keeper.close()


async def test_it_goes_dark_at_its_next_start_too_and_before_its_first_record(world, caplog):
    (await kept(world)).keeper.close()
    hidden = hide(world)
    core = await begun(world)
    core.keeper.close()
    core.joining.close()
    core = await fresh(world)
    await core.joining.start()
    assert core.baseline.present
    mount(world, hidden)
    assert await put(core, NEWER.model_copy(update={"tenant": "bank"})) is not Code.OK
    core.keeper.compare()
    await is_dark(world, core, caplog)
    core.joining.close()
    core.keeper.close()


async def test_what_a_region_accepts_itself_is_no_reason_to_go_dark(world):
    core = await begun(world)
    assert await put_all(core) == [Code.OK] * 3
    del world.bus.stream.stored[TENANT_KEY]
    await core.keeper.reconcile()
    assert core.baseline.present
    core.keeper.close()
    again = await fresh(world)  # killed after it wrote to the second store, and before all else
    assert again.baseline.present
    again.keeper.close()


async def test_a_bucket_that_ever_had_a_message_is_no_new_regions(world):
    world.bus.stream.sequence = 7
    core = await fresh(world, "core-eu")
    await core.joining.start()
    assert not core.baseline.present
    core.joining.close()
    core.keeper.close()
