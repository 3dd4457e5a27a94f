"""Making roots and service keys: once, by whoever comes first, whatever fails in between."""

import asyncio

import pytest
from kcm_core.providers.state import L1State
from kcm_schemas.codes import Code, KcmError

from tests.unit.core_rig import LINK, SERVICE, TENANT, URI
from tests.unit.refusals import refused
from tests.unit.trust_rig import hold


def kinds(core):
    return [kind for kind, _ in core.events]


async def test_making_again_changes_nothing(world):
    core = await world.core().made()
    root, service = await core.store.root("acme"), await core.store.service("acme", "crm")
    files = sorted(path.name for path in world.directory.iterdir())
    for again in (core, world.core("core-eu-2")):
        again.learn()
        await again.creator.root(TENANT, LINK)
        await again.creator.service(SERVICE)
        assert await again.store.root("acme") == root
        assert await again.store.service("acme", "crm") == service
    assert sorted(path.name for path in world.directory.iterdir()) == files
    assert kinds(core).count("root.create") == 1


async def test_two_cores_that_make_the_same_at_once_both_succeed_with_one_key(world):
    one, two = world.core(), world.core("core-eu-2")
    for core in (one, two):
        core.learn()
    await asyncio.gather(*(core.creator.root(TENANT, LINK) for core in (one, two)))
    await asyncio.gather(*(core.creator.service(SERVICE) for core in (one, two)))
    assert await one.store.root("acme") == await two.store.root("acme")
    for core in (one, two):
        assert await core.loader.service_key("acme", "crm", 0)
    assert (kinds(one) + kinds(two)).count("root.create") == 1
    assert (kinds(one) + kinds(two)).count("service.create") == 1


@pytest.mark.parametrize("step", range(12))
async def test_a_store_that_fails_at_any_step_leaves_something_to_go_on_with(world, step):
    """Root and service are asked for again after the failure, and what was made opens."""
    count = 0

    async def fails_once(operation, subject):
        nonlocal count
        count += 1
        if count == step + 1:
            raise TimeoutError

    core = world.core()
    core.learn()
    world.bus.stream.before = fails_once
    for _ in range(2):
        try:
            await core.creator.root(TENANT, LINK)
            await core.creator.service(SERVICE)
            break
        except KcmError as error:
            assert error.code is Code.UNAVAILABLE
    count = 1000
    other = world.core("core-eu-2")
    other.learn()
    await other.creator.root(TENANT, LINK)
    await other.creator.service(SERVICE)
    key = await other.loader.service_key("acme", "crm", 0)
    assert key == await core.loader.service_key("acme", "crm", 0)
    assert len(list(world.directory.iterdir())) == 2


@pytest.mark.parametrize(
    "kill", [hold(), hold(scope="link", target=LINK.link)], ids=["tenant", "link"]
)
async def test_for_a_killed_tenant_or_link_nothing_is_made(world, kill):
    """The tenant is not registered yet: only the link's own name says that it is killed."""
    core = world.core()
    core.kill(kill)
    assert await refused(core.creator.root(TENANT, LINK)) is Code.TENANT_KILLED
    assert world.unsealer.calls == []
    assert list(world.directory.iterdir()) == []


async def test_a_kill_while_the_customers_key_wraps_leaves_no_root(world):
    core = world.core()

    async def kill_now(operation, uri):
        core.kill()

    world.unsealer.hook = kill_now
    assert await refused(core.creator.root(TENANT, LINK)) is Code.TENANT_KILLED
    assert list(world.directory.iterdir()) == []


async def test_a_key_that_is_rotated_between_root_and_canary_is_asked_again(world):
    """A canary under another version could stay openable while the root is refused."""
    core = world.core()

    async def rotate(operation, uri):
        world.unsealer.key(uri).rotate()

    world.unsealer.hook = rotate
    assert await refused(core.creator.root(TENANT, LINK)) is Code.CONFLICT
    assert list(world.directory.iterdir()) == []


async def test_without_the_customers_key_nothing_is_made(world):
    core = world.core()
    world.unsealer.key(URI).state = L1State.FORBIDDEN
    assert await refused(core.creator.root(TENANT, LINK)) is Code.TENANT_UNAVAILABLE


async def test_a_root_under_another_link_is_a_conflict_and_not_a_tenant_that_never_opens(world):
    core = await world.core().made()
    other = LINK.model_copy(update={"link": "other"})
    moved = TENANT.model_copy(update={"link": "other"})
    assert await refused(core.creator.root(moved, other)) is Code.CONFLICT


async def test_a_service_of_a_tenant_without_a_root(world):
    core = world.core()
    core.learn()
    assert await refused(core.creator.service(SERVICE)) is Code.UNKNOWN_TENANT
