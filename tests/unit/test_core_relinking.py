"""Moving a tenant to another customer's key: the old one or the new one opens it, never neither."""

import asyncio

import pytest
from kcm_core.providers.state import L1State
from kcm_killswitch.model.registry_objects import rank_of
from kcm_schemas.codes import Code, KcmError

from tests.unit.admin_requests import put, said
from tests.unit.core_rig import LINK, SERVICE, TENANT, URI
from tests.unit.trust_rig import hold

NEW_URI = "softkey:/keys/acme-new"
NEW = LINK.model_copy(update={"link": "acme-new", "uri": NEW_URI})
MOVED = TENANT.model_copy(update={"link": "acme-new", "revision": 2})


async def made(world, name="core-eu"):
    """A Core with the tenant, its service, and both links."""
    core = world.core(name)
    assert [await put(core, one) for one in (LINK, TENANT, SERVICE, NEW)] == [Code.OK] * 4
    return core


async def incarnation(world, name="core-eu-2"):
    """A Core that starts now, and reads the registry as it is."""
    core = world.core(name)
    for noun, key in (("link", LINK.link), ("link", NEW.link), ("tenant", "acme")):
        await core.feed.fetch(noun, key)
    await core.feed.fetch("service", "acme", "crm")
    return core


async def opens(core):
    core.purge("acme")
    return await core.loader.service_key("acme", "crm", 0)


def only(world, uri):
    """Every other key is gone."""
    for other in (URI, NEW_URI):
        world.unsealer.key(other).state = L1State.ENABLED if other == uri else L1State.DELETED


async def test_only_the_outer_layer_is_made_anew(world):
    core = await made(world)
    before, key = await core.store.root("acme"), await opens(core)
    services = await core.store.service("acme", "crm")
    assert await put(core, MOVED) is Code.OK
    after = await core.store.root("acme")
    assert [one.link for one in after.versions] == ["acme-new"]
    assert (after.current, after.versions[0].version) == (
        before.current,
        before.versions[0].version,
    )
    assert after.versions[0].canary != before.versions[0].canary
    assert await core.store.service("acme", "crm") == services
    only(world, NEW_URI)
    assert await opens(core) == key
    assert [kind for kind, _ in core.events].count("root.relink") == 1


async def test_the_same_again_changes_nothing(world):
    core = await made(world)
    assert await put(core, MOVED) is Code.OK
    roots, calls = await core.store.root("acme"), len(world.unsealer.calls)
    for again in (core, await incarnation(world)):
        assert await put(again, MOVED) is Code.OK
    assert await core.store.root("acme") == roots
    assert len(world.unsealer.calls) == calls


async def test_it_can_be_moved_back(world):
    core = await made(world)
    assert await put(core, MOVED) is Code.OK
    assert await put(core, TENANT.model_copy(update={"revision": 3})) is Code.OK
    only(world, URI)
    assert await opens(core)


@pytest.mark.parametrize("step", range(40))
async def test_whatever_dies_in_between_one_of_the_two_opens_it(world, step):
    """The process ends at its n-th touch of a store or a key; the next one goes on."""
    core, count = await made(world), 0

    class Killed(BaseException):
        pass

    async def dies(*_):
        nonlocal count
        count += 1
        if count == step + 1:
            raise Killed

    world.bus.stream.before = world.unsealer.hook = dies
    try:
        assert await put(core, MOVED) is Code.OK
        died = False
    except Killed:
        died = True
    count = 1000
    after = await incarnation(world)
    named = after.registry.tenant("acme").link
    only(world, NEW_URI if named == "acme-new" else URI)
    assert await opens(after), "the link that the tenant's record names has to open it"
    only(world, None)
    world.unsealer.key(URI).state = world.unsealer.key(NEW_URI).state = L1State.ENABLED
    assert await put(after, MOVED) is Code.OK
    only(world, NEW_URI)
    assert await opens(after)
    assert [one.link for one in (await after.store.root("acme")).versions] == ["acme-new"]
    assert died or step > 10


async def test_two_cores_at_once_end_with_one_root(world):
    one = await made(world)
    two = await incarnation(world)
    codes = await asyncio.gather(put(one, MOVED), put(two, MOVED))
    assert Code.OK in codes
    assert set(codes) <= {Code.OK, Code.CONFLICT, Code.UNAVAILABLE}
    assert await put(two, MOVED) is Code.OK
    only(world, NEW_URI)
    await one.feed.fetch("tenant", "acme")
    assert await opens(one)


async def test_two_operators_who_move_it_to_different_keys_leave_one_that_opens(world):
    one = await made(world)
    third = NEW.model_copy(update={"link": "acme-third", "uri": "softkey:/keys/acme-third"})
    assert await put(one, third) is Code.OK
    two = await incarnation(world)
    await two.feed.fetch("link", "acme-third")
    prepared = world.bus.stream.before

    async def meanwhile(operation, subject):
        if operation == "put" and "tenant" in subject and "registry" in subject:
            world.bus.stream.before = prepared
            await two.rewrapper.prepare(MOVED.model_copy(update={"link": "acme-third"}), third)

    world.bus.stream.before = meanwhile
    assert await put(one, MOVED) in {Code.OK, Code.CONFLICT}
    assert await opens(await incarnation(world))


async def forked(world):
    """A tenant was moved, and of a fork the record counts that names the link of before."""
    core, stayed = await made(world), TENANT.model_copy(update={"revision": 2})
    names = (MOVED.model_copy(update={"link": f"acme-new-{n}"}) for n in range(99))
    moved = next(one for one in names if rank_of(one) < rank_of(stayed))
    assert await put(core, NEW.model_copy(update={"link": moved.link})) is Code.OK
    assert await put(core, moved) is Code.OK
    core.learn(stayed)
    assert core.registry.tenant("acme").link == LINK.link
    return core, moved.model_copy(update={"revision": 3})


async def test_a_fork_is_ended_by_the_link_that_opens_the_root(world):
    core, higher = await forked(world)
    with pytest.raises(KcmError):
        await opens(core)
    assert await put(core, higher) is Code.OK
    only(world, NEW_URI)
    assert await opens(core)


@pytest.mark.parametrize("target", [LINK.link, "moved"])
async def test_a_fork_is_not_ended_while_either_link_is_killed(world, target):
    core, higher = await forked(world)
    core.kill(hold(scope="link", target=higher.link if target == "moved" else target))
    assert await put(core, higher) is Code.TENANT_KILLED


@pytest.mark.parametrize("which", [URI, NEW_URI])
@pytest.mark.parametrize("state", [s for s in L1State if s is not L1State.ENABLED])
async def test_a_key_that_does_not_do_its_part_leaves_everything_as_it_was(world, which, state):
    core = await made(world)
    before = await core.store.root("acme")
    world.unsealer.key(which).state = state
    assert await put(core, MOVED) is Code.TENANT_UNAVAILABLE
    world.unsealer.key(which).state = L1State.ENABLED
    assert await core.store.root("acme") == before
    assert core.registry.tenant("acme") == TENANT
    assert await opens(core)


@pytest.mark.parametrize(
    "kill",
    [
        hold(),
        hold(scope="link", target=LINK.link),
        hold(scope="link", target=NEW.link),
    ],
    ids=["tenant", "old link", "new link"],
)
async def test_a_kill_is_not_evaded(world, kill):
    core = await made(world)
    before, calls = await core.store.root("acme"), len(world.unsealer.calls)
    core.kill(kill)
    assert await put(core, MOVED) is Code.TENANT_KILLED
    assert await core.store.root("acme") == before
    assert len(world.unsealer.calls) == calls


async def test_a_kill_in_the_middle_leaves_no_trace(world):
    core = await made(world)
    before = await core.store.root("acme")

    async def kill_now(operation, uri):
        if operation == "wrap":
            core.kill()

    world.unsealer.hook = kill_now
    assert await put(core, MOVED) is Code.TENANT_KILLED
    assert await core.store.root("acme") == before


async def test_a_key_that_lies_about_the_root_does_not_cost_it(world):
    core = await made(world)
    before, unwrap = await core.store.root("acme"), world.unsealer.unwrap_into

    async def lies(uri, blob, context, mechanism, out, *, deadline_s):
        told = await unwrap(uri, blob, context, mechanism, out, deadline_s=deadline_s)
        out[0] ^= 1
        return told

    world.unsealer.unwrap_into = lies
    assert await put(core, MOVED) is Code.TAMPERED
    assert await core.store.root("acme") == before
    world.unsealer.unwrap_into = unwrap
    assert await opens(core)


async def test_a_link_that_is_not_known_is_said_so(world):
    core = await made(world)
    gone = TENANT.model_copy(update={"link": "nowhere", "revision": 2})
    assert await said(core, gone) == (Code.UNKNOWN_LINK, "this region has no link nowhere")
    assert await opens(core)
