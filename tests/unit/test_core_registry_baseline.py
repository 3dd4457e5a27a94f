"""A Core without a baseline of its registry: what it refuses, and how it gets one again."""

import asyncio

import pytest
from kcm_core.providers.state import L1State
from kcm_core.registry.floors import Floors
from kcm_core.registry.stores import PREFIX
from kcm_killswitch.model.control_lease import EXPIRED, FOREVER
from kcm_killswitch.model.registry_lease import NO_BASELINE, RegistryLease
from kcm_schemas import subjects
from kcm_schemas.admin.registry import AdoptOrder, RegistryView
from kcm_schemas.admin.roster import SignedQuery
from kcm_schemas.codec import decode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.signed import Kind

from tests.audit_rig import until
from tests.unit.admin_requests import ask, put, request
from tests.unit.core_rig import LINK, SERVICE, TENANT, URI, VERIFIER, signed
from tests.unit.registry_rig import (
    FULL,
    NEWER,
    TENANT_KEY,
    adopt,
    emitted,
    floors_of,
    fresh,
    kept,
    read,
    served,
    shown,
)

pytestmark = pytest.mark.usefixtures("recovery_at_once")


def test_an_incarnation_without_a_baseline_believes_nothing_until_it_remembers():
    lease, told = RegistryLease(), []
    lease.listen(lambda: told.append(1))
    lease.without_baseline()
    assert lease.until(0.0) == EXPIRED
    assert lease.until(0.0, [1, 2]) == EXPIRED
    assert not lease.heard("core-2", [b"a"], [b"a"], 10.0, 0.0)
    assert lease.until(0.0) == EXPIRED
    lease.remembered()
    assert told
    assert lease.until(0.0) == FOREVER


async def test_a_core_that_finds_records_serves_nothing_and_a_restart_is_no_baseline(world, caplog):
    await kept(world)
    for _ in range(2):
        core = await fresh(world)
        assert core.registry.tenant("acme") == TENANT
        for tenant in ("acme", "of which the stores know nothing any more"):
            assert served(core, tenant) == (Code.UNAVAILABLE, NO_BASELINE)
        assert core.freshness.registry.until(core.world.clock.elapsed()) == EXPIRED
        assert not floors_of(world).exists()
        await core.joining.start()
        (event,) = emitted(core, "registry.forgotten")
        assert (event["code"], event["count"]) == (Code.UNAVAILABLE, 3)
        assert "kcm registry adopt" in caplog.text
        core.joining.close()
        core.keeper.close()


async def test_a_core_without_a_baseline_accepts_nothing_and_changes_nothing(world):
    one = await kept(world)
    del world.bus.stream.stored[TENANT_KEY]
    (world.directory / f"{PREFIX}service.acme.crm" / f"{1:020d}").unlink()
    core = await fresh(world)
    before = dict(world.bus.stream.stored), sorted(world.directory.rglob("*"))
    assert await put(core, LINK) is Code.UNAVAILABLE
    assert await put(core, NEWER) is Code.UNAVAILABLE
    assert await put(core, SERVICE) is Code.UNAVAILABLE
    with pytest.raises(KcmError) as caught:
        await core.keeper.accept(signed(Kind.TENANT, NEWER), NEWER)
    assert caught.value.detail == NO_BASELINE
    query = SignedQuery(name="admin", after="")
    raw = request(core, "roster", "signed", query)
    assert (await ask(core, raw, "roster", "signed"))[0] is Code.UNAVAILABLE
    core.keeper.compare()
    await core.keeper.round()
    await until(lambda: core.keeper.idle)
    assert core.registry.digest == one.registry.digest  # of both stores it knows everything
    assert (dict(world.bus.stream.stored), sorted(world.directory.rglob("*"))) == before
    core.keeper.close()


async def test_a_core_without_a_baseline_uses_no_key_in_the_regions_name(world, monkeypatch):
    monkeypatch.setattr("kcm_core.root_keys.monitor.TICK_S", 0.001)
    await kept(world)
    core = await fresh(world)
    world.unsealer.calls.clear()
    core.holds.place(LINK.link, L1State.DISABLED)  # a held key is probed until it is allowed again

    def probed():
        world.clock.now += 1.0
        return ("probe", URI) in world.unsealer.calls

    core.watch.start()
    for _ in range(20):
        await asyncio.sleep(0.005)
        assert not probed()
    core.freshness.registry.remembered()
    await until(probed)
    core.watch.close()
    core.keeper.close()


async def test_an_operator_adopts_what_they_saw_and_nothing_else(world):
    await kept(world)
    core = await fresh(world)
    await core.joining.start()
    seen = await shown(core)
    assert (seen.core, seen.baseline) == ("core-eu-2", False)
    assert (seen.tenants, seen.links, seen.services, seen.highest) == (1, 1, 1, 1)
    assert seen.waits.startswith("no Core of the region")
    assert (await adopt(core, seen.digest, "security"))[0] is Code.FORBIDDEN
    raw = request(core, "registry", "adopt", AdoptOrder(digest=bytes(32)))
    reply, _ = VERIFIER.admin_reply(
        await core.admin.handle(subjects.admin_at("eu", "registry", "adopt", "core-eu-2"), raw)
    )
    assert reply.code is Code.CONFLICT
    assert seen.digest.hex() in reply.detail
    assert served(core)[0] is Code.UNAVAILABLE
    code, payload = await adopt(core, seen.digest)
    assert (code, decode(RegistryView, payload).baseline) == (Code.OK, True)
    assert served(core) == (Code.OK, "")
    (event,) = emitted(core, "registry.adopted")
    assert (event["actor"], event["count"]) == ("admin", 3)
    assert event["detail"] == seen.digest.hex()
    await until(lambda: core.region_bus.subscriptions)  # and now it answers others
    core.joining.close()
    core.keeper.close()


async def test_a_core_with_a_baseline_has_nothing_to_adopt(world):
    core = await kept(world)
    code, payload = await adopt(core, bytes(32))
    view = decode(RegistryView, payload)
    assert (code, view.baseline, view.waits) == (Code.OK, True, "")
    assert not emitted(core, "registry.adopted")


@pytest.mark.parametrize("call", ["write", "link", "fsync"])
async def test_a_full_disk_while_adopting_changes_nothing_and_is_said(world, monkeypatch, call):
    await kept(world)
    core = await fresh(world)

    def full(*_, **__):
        raise FULL

    with monkeypatch.context() as patch:
        if call == "fsync":
            patch.setattr("os.fsync", full)
        elif call == "link":
            patch.setattr("os.link", full)
        else:
            patch.setattr("kcm_core.registry.floors.place", full)
        raw = request(core, "registry", "adopt", AdoptOrder(digest=core.baseline.digest))
        here = subjects.admin_at("eu", "registry", "adopt", core.me.name)
        reply, _ = VERIFIER.admin_reply(await core.admin.handle(here, raw))
    assert reply.code is Code.UNAVAILABLE
    assert "No space left on device; make room in its state_dir" in reply.detail
    assert served(core)[0] is Code.UNAVAILABLE
    assert not floors_of(world).exists()
    assert not world.core("core-eu-2", remembers=False).baseline.present
    assert (await adopt(core, core.baseline.digest))[0] is Code.OK
    assert served(core) == (Code.OK, "")
    core.keeper.close()


async def test_what_another_core_accepted_is_remembered_too(world):
    one = await kept(world)
    two = world.core("core-eu-2")
    read(two)
    await two.keeper.start()
    assert await put(one, NEWER) is Code.OK
    read(two)

    def written():
        return ("tenant", "acme") in dict(Floors(floors_of(world)).items())

    await until(
        lambda: written() and dict(Floors(floors_of(world)).items())["tenant", "acme"][0] == 2
    )
    two.keeper.close()


async def test_what_could_not_be_written_down_is_tried_again(world, monkeypatch):
    monkeypatch.setattr("kcm_core.registry.baseline.RETRY_S", 0.0)
    core = await fresh(world, "core-eu")
    await core.joining.start()

    def full(_, floors):
        if floors:
            raise FULL

    with monkeypatch.context() as patch:
        patch.setattr(Floors, "raise_to", full)
        assert await put(core, LINK) is Code.UNAVAILABLE  # stored, and the same again goes on
    await until(lambda: dict(Floors(floors_of(world, "core-eu")).items()))
    assert await put(core, LINK) is Code.OK
    core.keeper.close()


async def test_two_ways_to_a_baseline_at_once_are_one(world):
    await kept(world)
    core = await fresh(world)
    digest = core.baseline.digest
    done = await asyncio.gather(*(adopt(core, digest) for _ in range(3)))
    assert {code for code, _ in done} == {Code.OK}
    assert len(emitted(core, "registry.adopted")) == 1
    core.keeper.close()
