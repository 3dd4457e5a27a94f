"""More customers' keys in use than may be probed: some are unloaded, and no lease is lengthened."""

import pytest
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.l1 import L1State
from kcm_schemas.registry import Link

from tests.fakes.virtual import let_pass
from tests.unit.switch.statements import tenant

PER_S = 4.0


def linked(number):
    name = f"t{number:03}"
    link = Link(link=name, revision=1, uri=f"softkey:/keys/{name}", model="byok")
    return link, tenant(name, link=name)


async def opened(system, count, per_s=PER_S):
    """A Core with a key and an open tenant for each of so many customers."""
    core = system.core("core-eu-1", probes_per_s=per_s)
    await core.start(regions=False)
    for number in range(count):
        link, one = linked(number)
        await core.make(one, link=link)
    for number in range(count):
        await core.loader.ring(linked(number)[1].tenant)
    return core


def probes(core):
    return sum(operation == "probe" for operation, _ in core.unsealer.calls)


async def test_probes_are_bounded_and_who_was_not_used_for_longest_is_unloaded(system):
    core = await opened(system, 150)
    core.unsealer.calls.clear()
    await let_pass(1)
    left = core.vault.open_tenants
    window_s = system.timing.probe_window_s("byok")
    assert 0 < len(left) <= PER_S * window_s
    assert left == [linked(number)[1].tenant for number in range(150 - len(left), 150)]
    assert core.count("key.crowded") == 1
    assert core.count("root.unload") == 150 - len(left)
    await let_pass(60)
    assert probes(core) <= 61 * PER_S + PER_S
    assert core.vault.open_tenants == left  # each is used again within its lease


async def test_it_is_said_before_the_room_is_used_up_once_and_when_there_is_room_again(system):
    core = await opened(system, 10)
    await let_pass(1)
    use = core.watch.use()
    assert (use.state, use.since_ms, use.in_use, use.unloaded) == ("free", 0, 10, 0)
    full = use.most
    for number in range(10, full):
        link, one = linked(number)
        await core.make(one, link=link)
        await core.loader.ring(one.tenant)
    await let_pass(15)
    use = core.watch.use()
    assert (use.state, use.in_use, use.most) == ("filling", full, full)
    assert (core.count("key.filling"), core.count("key.crowded")) == (1, 0)
    said = next(fields for kind, fields in core.events if kind == "key.filling")
    assert f"of {full} " in said["detail"]
    assert "probes_per_s" in said["detail"]
    for number in range(full // 2):
        core.purge(linked(number)[1].tenant)
    await let_pass(1)
    assert (core.watch.use().state, core.watch.use().since_ms) == ("free", 0)
    assert (core.count("key.filling"), core.count("key.room")) == (1, 1)


async def test_who_was_unloaded_is_told_with_how_many_and_since_when(system):
    core = await opened(system, 150)
    began = core.clock.unix_ms()
    await let_pass(1)
    use = core.watch.use()
    assert use.state == "crowded"
    assert (use.core, use.region) == ("core-eu-1", "eu")
    assert use.in_use == use.most == len(core.vault.open_tenants)
    assert use.unloaded == use.unloaded_all == 150 - use.in_use
    assert began <= use.since_ms <= use.unloaded_ms <= core.clock.unix_ms()
    await let_pass(70)
    assert core.watch.use().state == "filling"
    assert core.count("key.crowded") == core.count("key.filling") == 1
    assert core.watch.use().unloaded == use.unloaded
    await let_pass(600)
    assert (core.watch.use().unloaded, core.watch.use().unloaded_all) == (0, use.unloaded)


async def test_every_tenant_that_was_unloaded_is_in_an_event(system):
    core = await opened(system, 150)
    await let_pass(1)
    for number in range(30):
        await core.loader.ring(linked(number)[1].tenant)
        await let_pass(1)
    await let_pass(15)
    told = sum(fields["count"] for kind, fields in core.events if kind == "key.crowded")
    assert told == core.count("root.unload") == core.watch.use().unloaded_all
    assert core.count("key.crowded") <= 2 + 45 // 10


async def test_who_is_used_stays_and_who_was_unloaded_opens_when_it_is_used(system):
    core = await opened(system, 50)
    await let_pass(1)
    kept, unloaded = core.vault.open_tenants[0], "t000"
    assert core.vault.open_tenants == [linked(number)[1].tenant for number in range(50)]
    await core.loader.ring(unloaded)
    for number in range(50, 150):
        link, one = linked(number)
        await core.make(one, link=link)
        await core.loader.ring(one.tenant)
        await core.loader.ring(kept)
        await let_pass(0.3)
    assert kept in core.vault.open_tenants
    assert "t001" not in core.vault.open_tenants
    assert await core.loader.ring("t001")
    await let_pass(1)
    assert {"t001", kept} <= set(core.vault.open_tenants)


async def test_no_lease_is_lengthened_where_keys_take_turns(system):
    """Whatever may be served, its key was used within a lease, at every moment."""
    core = await opened(system, 150)
    used = {}

    async def note(operation, uri):
        used[uri.rpartition("/")[2]] = core.clock.elapsed()

    core.unsealer.hook = note
    began = core.clock.elapsed()
    for _ in range(400):
        await let_pass(0.2)
        now = core.clock.elapsed()
        for name in core.vault.open_tenants:
            try:
                left = core.admission.recheck(core.admission.admit(name, now), now)
            except KcmError as error:
                assert error.code is Code.TENANT_UNAVAILABLE
            else:
                since = used.get(name, began)
                assert now + left <= since + system.timing.l1_lease_s + 0.001


@pytest.mark.parametrize("state", [L1State.UNREACHABLE, L1State.DISABLED])
async def test_many_keys_that_fail_keep_no_other_from_being_used(system, state):
    core = await opened(system, 40)
    await let_pass(10)
    for number in range(30):
        core.unsealer.key(linked(number)[0].uri).state = state
    for _ in range(120):
        await let_pass(1)
        for number in range(30, 40):
            assert core.admission.live(linked(number)[1].tenant, core.clock.elapsed())
    assert core.count("key.crowded") == 0


async def test_keys_that_nothing_is_open_by_are_not_asked(system):
    core = await opened(system, 10)
    for number in range(1, 10):
        core.purge(linked(number)[1].tenant)
    await let_pass(1)
    core.unsealer.calls.clear()
    await let_pass(30)
    assert {uri for _, uri in core.unsealer.calls} == {linked(0)[0].uri}
