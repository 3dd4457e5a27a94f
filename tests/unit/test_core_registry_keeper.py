"""The registry as a region's Cores keep it: in two stores, repaired, and never set back."""

import errno

import pytest
from kcm_core.keys.file_store import FileKeyStore
from kcm_core.registry.floors import Floors
from kcm_core.registry.stores import PREFIX
from kcm_runtime.nats.ports import Entry
from kcm_schemas import subjects
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import RegistryEntry
from kcm_schemas.signed import Kind
from kcm_trust.verify import Untrusted

from tests.fakes.bus import nothing
from tests.unit.admin_requests import put
from tests.unit.core_rig import LINK, SERVICE, TENANT, VERIFIER, signed
from tests.unit.registry_rig import (
    NEWER,
    TENANT_KEY,
    kept,
    lay,
    lay_in_second_store,
    stored,
    word,
)
from tests.unit.roster_changes import signed_roster, without


async def test_what_no_core_accepted_counts_nowhere(world):
    """An operator's statement that a Core refused stays well signed."""
    await kept(world)
    refused = signed(Kind.TENANT, NEWER)
    entry = decode(RegistryEntry, stored(world))
    for data in (
        refused,
        encode(RegistryEntry(statement=refused, accepted=b"")),
        encode(RegistryEntry(statement=refused, accepted=entry.accepted)),
        encode(RegistryEntry(statement=refused, accepted=word(refused, "gw-eu"))),
        encode(RegistryEntry(statement=refused, accepted=word(refused, "core-us", "us"))),
        encode(RegistryEntry(statement=refused, accepted=word(refused, "core-us"))),
    ):
        with pytest.raises(Untrusted):
            VERIFIER.registered(data, "eu")
    good = RegistryEntry(statement=refused, accepted=word(refused, "core-eu-2"))
    assert VERIFIER.registered(encode(good), "eu") == NEWER


async def test_what_no_core_would_accept_is_checked_by_everybody(world):
    """A Core whose key is in other hands puts its word on what the rules forbid."""
    for change in ({"region_quorum": "majority"}, {"regions": ["us"]}):
        raw = signed(Kind.TENANT, TENANT.model_copy(update=change))
        entry = encode(RegistryEntry(statement=raw, accepted=word(raw, "core-eu")))
        with pytest.raises(Untrusted, match="may accept"):
            VERIFIER.registered(entry, "eu")


async def test_an_older_record_that_is_put_back_is_repaired(world):
    core = await kept(world)
    old = stored(world)
    assert await put(core, NEWER) is Code.OK
    new = stored(world)
    lay(world, old)
    await core.feed.fetch("tenant", "acme")
    assert core.registry.tenant("acme") == NEWER
    await core.keeper.round()
    assert stored(world) == new
    (event,) = [fields for kind, fields in core.events if kind == "registry.repaired"]
    assert (event["code"], event["tenant"]) == (Code.TAMPERED, "acme")


@pytest.mark.parametrize("junk", [b"junk", b"", b"\xdc\x20\x00" * 1000])
async def test_garbage_over_a_record_is_repaired(world, junk):
    core = await kept(world)
    good = stored(world)
    lay(world, junk)
    core.keeper.wrong(("tenant", "acme"), "garbage")
    await core.keeper.round()
    assert stored(world) == good


async def test_whoever_writes_over_a_record_without_end_cannot_fill_the_record(world):
    core = await kept(world)
    times = 20
    for _ in range(times):
        lay(world, b"junk")
        core.keeper.wrong(("tenant", "acme"), "garbage")
        await core.keeper.round()
    core.keeper.close()
    found = [fields for kind, fields in core.events if kind == "registry.repaired"]
    assert [one["count"] for one in found] == [1, times - 1]


async def test_a_core_that_begins_takes_from_the_second_store_what_the_bucket_lost(world):
    core = await kept(world)
    old = stored(world)
    assert await put(core, NEWER) is Code.OK
    lay(world, old)
    fresh = world.core("core-eu-2")
    await fresh.feed.fetch("tenant", "acme")
    assert fresh.registry.tenant("acme") == TENANT
    await fresh.keeper.reconcile()
    assert fresh.registry.tenant("acme") == NEWER
    world.bus.stream.stored.clear()  # and an empty bucket is no empty system
    last = world.core("core-eu-2")
    await last.keeper.reconcile()
    assert last.registry.tenant("acme") == NEWER
    assert last.registry.digest == core.registry.digest
    assert TENANT_KEY in world.bus.stream.stored


async def test_what_was_known_once_is_not_served_from_two_stores_that_were_set_back(world, caplog):
    core = await kept(world)
    old = stored(world)
    assert await put(core, NEWER) is Code.OK
    await core.keeper.reconcile()
    (world.directory / f"{PREFIX}tenant.acme" / f"{2:020d}").unlink()
    lay(world, old)
    again = world.core()
    await again.feed.fetch("tenant", "acme")
    await again.keeper.reconcile()
    assert again.registry.tenant("acme") is None
    lost = [fields for kind, fields in again.events if kind == "registry.lost"]
    assert [one["detail"] for one in lost] == ["tenant.acme"]
    assert "restore the second store" in caplog.text
    assert "`kcm tenant create` and a revision above 2" in caplog.text
    assert await put(again, NEWER.model_copy(update={"revision": 3})) is Code.OK
    assert again.registry.tenant("acme").revision == 3
    assert again.registry.below_floor == []


async def comparing(world):
    """A Core that is to compare its registry with both stores."""
    core = await kept(world)
    core.keeper.compare()
    return core


async def test_nothing_is_compared_while_the_second_store_has_a_higher_record_that_nobody_believes(
    world,
):
    core = await comparing(world)
    lay_in_second_store(world, "tenant.acme", 3, b"damaged")
    await core.keeper.round()
    assert not core.comparisons
    assert core.keeper.comparing  # it is tried again, also when nobody differs any more
    assert await put(core, NEWER.model_copy(update={"revision": 4})) is Code.OK
    await core.keeper.round()
    assert core.comparisons == 1
    assert not core.keeper.comparing


async def test_an_old_record_under_a_higher_revision_is_not_what_lies_there(world):
    core = await comparing(world)
    lay_in_second_store(world, "tenant.acme", 3, stored(world))
    await core.keeper.round()
    assert not core.comparisons


async def test_damage_below_what_is_known_keeps_nobody_from_comparing(world):
    core = await comparing(world)
    lay_in_second_store(world, "tenant.acme", 1, b"damaged")
    (world.directory / f"{PREFIX}junk.x").mkdir()
    lay_in_second_store(world, "junk.x", 7, b"no record has this name")
    await core.keeper.round()
    assert core.comparisons == 1


async def test_a_second_store_that_was_set_back_gets_what_counts(world, monkeypatch):
    core = await kept(world)
    assert await put(core, NEWER) is Code.OK
    newest = world.directory / f"{PREFIX}tenant.acme" / f"{2:020d}"
    newest.unlink()
    assert await core.keeper.reconcile()
    assert newest.read_bytes() == stored(world)
    newest.unlink()
    with monkeypatch.context() as patch:

        def full(self, key, revision, data):
            raise KcmError(Code.UNAVAILABLE)

        patch.setattr(FileKeyStore, "create", full)
        await core.keeper.reconcile()
    assert core.keeper.comparing  # and it is tried again
    await core.keeper.reconcile()
    assert newest.read_bytes() == stored(world)


async def test_a_record_that_cannot_be_put_back_yet_is_put_back_by_the_next_round(world):
    core = await kept(world)
    old = stored(world)
    assert await put(core, NEWER) is Code.OK
    new = stored(world)
    lay(world, old)
    late = world.core("core-eu-2")
    await late.feed.fetch("tenant", "acme")

    async def fail(operation, subject):
        if operation == "put" and subject == TENANT_KEY:
            raise KcmError(Code.UNAVAILABLE)

    world.bus.stream.before = fail
    await late.keeper.reconcile()
    assert late.registry.tenant("acme") == NEWER
    await late.keeper.round()
    assert late.keeper.repairs.pending == [("tenant", "acme")]
    assert not late.keeper.idle
    world.bus.stream.before = nothing
    await late.keeper.round()
    assert late.keeper.repairs.pending == []
    assert stored(world) == new


async def test_what_is_no_key_is_not_tried_again_for_ever(world, caplog):
    caplog.set_level("WARNING", logger="kcm_core.registry.repair")
    core = await kept(world)
    names = (
        "x", "tenant.acme.crm", "tenant." + "a" * 64, "link.A", "service.acme", "tenant.a/b",
        "tenant." + "a" * 4000,
    )  # fmt: skip
    for name in names:
        lay(world, b"junk", f"$KV.{subjects.REGISTRY_BUCKET}.{name}")
        core.feed.take(Entry(9, f"$KV.{subjects.REGISTRY_BUCKET}.{name}", b"junk"))
    assert core.keeper.repairs.pending == []
    assert core.keeper.idle
    (line,) = [one.getMessage() for one in caplog.records if "invalid key" in one.getMessage()]
    assert len(line) < 200
    core.feed.take(Entry(9, TENANT_KEY, b"junk"))
    assert core.keeper.repairs.pending == [("tenant", "acme")]
    assert not core.keeper.idle


async def test_two_cores_accept_one_record_of_a_revision(world):
    one, two = await kept(world), world.core("core-eu-2")
    other = NEWER.model_copy(update={"region_quorum": "all"})
    assert await put(one, NEWER) is Code.OK
    world.bus.stream.stored.pop(TENANT_KEY)  # the other one has not heard of it
    two.learn(LINK, TENANT, SERVICE)
    assert await put(two, other) is Code.CONFLICT
    assert await put(two, NEWER) is Code.OK


async def test_a_crash_between_the_stores_is_gone_on_with(world):
    core = await kept(world)

    async def die(operation, subject):
        if operation == "put" and subject == TENANT_KEY:
            raise RuntimeError("killed")

    world.bus.stream.before = die
    assert await put(core, NEWER) is Code.UNAVAILABLE
    world.bus.stream.before = nothing
    fresh = world.core("core-eu-2")
    await fresh.feed.fetch("tenant", "acme")
    await fresh.keeper.reconcile()
    assert fresh.registry.tenant("acme") == NEWER


async def test_a_core_that_still_has_what_a_roster_took_out_of_force_is_not_behind(world):
    core = await kept(world)
    lease, before = core.freshness.registry, core.revocations.registry_digests
    lease.changed(before)
    core.me.rosters.take(signed_roster(without("admin")))
    ours = core.revocations.registry_digests
    assert ours != before
    assert lease.heard("core-eu-2", before, ours, 10.0, now=0.0)


class Info:
    """A bucket in which somebody put as much as is missing."""

    class state:  # noqa: N801 - as the client library has it
        messages = 1000


async def test_junk_beside_the_records_does_not_hide_that_one_is_missing(world, monkeypatch):
    monkeypatch.setattr("kcm_core.registry.inspection.COMPARED_MAX", 2)
    core = await kept(world)

    async def stream_info(_):
        return Info

    monkeypatch.setattr(world.bus.stream, "stream_info", stream_info, False)
    del world.bus.stream.stored[TENANT_KEY]
    for _ in range(2):
        await core.keeper.inspect()
        await core.keeper.round()
    assert decode(RegistryEntry, stored(world)).statement
    assert ("registry.repaired" in {kind for kind, _ in core.events}) is True


async def test_a_damaged_file_of_the_second_store_is_healed(world, monkeypatch):
    core = await kept(world)

    async def stream_info(_):
        return Info

    monkeypatch.setattr(world.bus.stream, "stream_info", stream_info, False)
    file = world.directory / f"{PREFIX}tenant.acme" / f"{TENANT.revision:020d}"
    good = file.read_bytes()
    file.write_bytes(good[:-3])
    await core.keeper.inspect()
    assert file.read_bytes() == good
    # Another Core's word on the same record is no damage.
    entry = decode(RegistryEntry, good)
    other = encode(
        RegistryEntry(statement=entry.statement, accepted=word(entry.statement, "core-eu-2"))
    )
    file.write_bytes(other)
    await core.keeper.inspect()
    assert file.read_bytes() == other


async def test_a_full_disk_at_the_start_is_waited_for(world, monkeypatch):
    monkeypatch.setattr("kcm_core.registry.keeper.RETRY_S", 0.0)
    core = await kept(world)
    fails = [OSError(errno.ENOSPC, "No space left on device")]
    raise_to = Floors.raise_to

    def once(floors, known):
        if fails:
            raise fails.pop()
        raise_to(floors, known)

    monkeypatch.setattr(Floors, "raise_to", once)
    await core.keeper.start()
    core.keeper.close()
    assert not fails
