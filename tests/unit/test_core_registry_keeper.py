"""The registry as a region's Cores keep it: in two stores, repaired, and never set back."""

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from kcm_core.keys.file_store import FileKeyStore
from kcm_core.registry.floors import Floors
from kcm_core.registry.stores import PREFIX
from kcm_runtime.config import ConfigError
from kcm_runtime.nats.ports import Entry
from kcm_schemas import subjects
from kcm_schemas.codec import decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import Accepted, RegistryEntry
from kcm_schemas.signed import Kind, read_signed
from kcm_trust.envelopes import statement_digest
from kcm_trust.verify import Untrusted

from tests.fakes.bus import nothing
from tests.unit.admin_requests import put, put_all
from tests.unit.core_rig import LINK, SERVICE, TENANT, VERIFIER, World, signed
from tests.unit.test_core_rostering import signed_roster, without

TENANT_KEY = subjects.bucket_subject(subjects.REGISTRY_BUCKET, "tenant", "acme")
NEWER = TENANT.model_copy(update={"revision": 2, "region_quorum": "local"})


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def stored(world):
    return world.bus.stream.stored[TENANT_KEY][1]


def lay(world, data, subject=TENANT_KEY):
    """Somebody with the broker's password puts this there."""
    world.bus.stream.sequence += 1
    world.bus.stream.stored[subject] = (world.bus.stream.sequence, data)


async def kept(world, name="core-eu"):
    core = world.core(name)
    assert await put_all(core) == [Code.OK] * 3
    return core


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


def word(statement, who, region="eu"):
    body = Accepted(statement=statement_digest(read_signed(statement)), region=region, roster=3)
    return signed(Kind.ACCEPTED, body, who)


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
    assert "`kcm tenant create` with a --revision above 2" in caplog.text
    assert await put(again, NEWER.model_copy(update={"revision": 3})) is Code.OK
    assert again.registry.tenant("acme").revision == 3
    assert again.registry.below_floor == []


def lay_in_second_store(world, name, revision, data):
    place = world.directory / f"{PREFIX}{name}"
    place.mkdir(exist_ok=True)
    (place / f"{revision:020d}").write_bytes(data)


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
    (line,) = [one.getMessage() for one in caplog.records if "no record" in one.getMessage()]
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


def test_floors_come_back_and_only_rise(tmp_path):
    path = tmp_path / "floors"
    floors = Floors(path)
    assert floors.fresh
    with pytest.raises(RuntimeError, match="begin"):
        floors.raise_to([(("link", "l"), (1, b"a" * 32))])
    assert Floors(path).fresh
    floors.begin([])
    key = ("tenant", "acme")
    floors.raise_to([(key, (2, b"b" * 32)), (("link", "l"), (1, b"a" * 32))])
    floors.raise_to([(key, (1, b"z" * 32))])
    again = Floors(path)
    assert dict(again.items())[key] == (2, b"b" * 32)
    assert not again.fresh
    with path.open("a") as file:
        file.write("tenant.acme 3 ")  # a crash in the middle of a line
    torn = Floors(path)
    assert dict(torn.items())[key] == (2, b"b" * 32)
    torn.raise_to([(key, (4, b"d" * 32))])
    assert dict(Floors(path).items())[key] == (4, b"d" * 32)


@pytest.mark.parametrize(
    "content", [b"tenant.acme two 00\n", b"tenant.actenant.b 1 00\n", b"\xff\n"]
)
def test_what_stops_a_core_names_no_command_that_does_not_exist(tmp_path, content):
    path = tmp_path / "floors"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="restore it from a backup") as caught:
        Floors(path)
    assert "kcm " not in str(caught.value)


def test_damaged_floors_stop_a_core(tmp_path):
    path = tmp_path / "floors"
    path.write_text("tenant.acme two 00\n")
    with pytest.raises(ConfigError, match="damaged"):
        Floors(path)


def test_floors_that_were_cut_stop_a_core(tmp_path):
    """At a line's end, too, and to nothing: what is left is no memory of what there was."""
    path = tmp_path / "floors"
    floors = begun(path)
    for number in range(3):
        floors.raise_to([(("tenant", f"t{number}"), (1, b"a" * 32))])
    content = path.read_bytes()
    assert len(Floors(path).items()) == 3
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ConfigError, match=r"was cut.*restore it from a backup; without one re"):
            Floors(path)
    path.write_bytes(content + b"tenant.t3 1 00")  # a crash before the line was in use
    assert len(Floors(path).items()) == 3
    assert path.read_bytes() == content


def test_a_crash_before_the_first_line_was_written_again_loses_nothing(tmp_path):
    path = tmp_path / "floors"
    floors = begun(path)
    first = path.read_bytes()
    floors.raise_to([(("tenant", "a"), (1, b"a" * 32))])
    path.write_bytes(first + path.read_bytes()[len(first) :])
    assert Floors(path).items() == floors.items()


def test_floors_of_an_earlier_version_count_and_get_their_first_line(tmp_path):
    path = tmp_path / "floors"
    path.write_text(f"tenant.acme 3 {'ab' * 32}\n")
    floors = Floors(path)
    assert not floors.fresh
    assert dict(floors.items()) == {("tenant", "acme"): (3, b"\xab" * 32)}
    floors.raise_to([(("link", "l"), (1, b"a" * 32))])
    assert sorted(Floors(path).items()) == sorted(floors.items())
    assert len(floors.items()) == 2
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ConfigError, match="was cut"):
        Floors(path)


class Disk:
    """A disk that is full once, in the middle of a line."""

    def __init__(self, path, fits):
        self.path, self.fits, self.full = path, fits, True

    def fsync(self, fd):
        if self.full:
            self.full = False
            os.truncate(self.path, self.fits)
            raise OSError(errno.ENOSPC, "No space left on device")


def begun(path, *sync):
    floors = Floors(path, *sync)
    floors.begin([])
    return floors


def test_floors_that_did_not_fit_leave_nothing_of_their_line(tmp_path, monkeypatch):
    path = tmp_path / "floors"
    floors = begun(path)
    floors.raise_to([(("tenant", "a"), (1, b"a" * 32))])
    disk = Disk(path, path.stat().st_size + 30)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", disk.fsync)
        with pytest.raises(OSError, match="space"):
            floors.raise_to([(("tenant", "acme"), (5, b"b" * 32))])
    assert path.read_bytes().count(b"\n") == 2
    assert path.read_bytes().endswith(b"\n")
    assert ("tenant", "acme") not in dict(floors.items())
    floors.raise_to([(("tenant", "bank"), (7, b"c" * 32))])
    assert sorted(Floors(path).items()) == sorted(floors.items())


def test_what_a_failed_write_left_is_cut_off_before_the_next_one(tmp_path):
    """Also where it could not be cut off at once."""
    path = tmp_path / "floors"
    floors = begun(path)
    floors.raise_to([(("tenant", "a"), (1, b"a" * 32))])
    with path.open("a") as file:
        file.write("tenant.acme 5 0202")
    floors.raise_to([(("tenant", "bank"), (7, b"c" * 32))])
    assert sorted(Floors(path).items()) == sorted(floors.items())


def test_two_threads_that_raise_floors_do_not_cut_each_other_off(tmp_path, monkeypatch):
    path = tmp_path / "floors"
    floors = begun(path)
    both = threading.Barrier(2)

    def meet(fd):
        with suppress(threading.BrokenBarrierError):
            both.wait(0.05)  # only where both may write at once

    monkeypatch.setattr("os.fsync", meet)
    keys = [("tenant", name) for name in ("a", "b")]
    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(floors.raise_to, [(key, (1, b"a" * 32))]) for key in keys]
    assert [one.result() for one in done] == [None, None]
    assert sorted(dict(Floors(path).items())) == keys


def test_the_name_of_a_new_file_of_floors_outlives_a_power_cut(tmp_path):
    synced = []
    floors = begun(tmp_path / "state" / "floors", synced.append)
    floors.raise_to([(("tenant", "a"), (1, b"a" * 32))])
    assert synced == [tmp_path / "state"]
    floors.raise_to([(("tenant", "a"), (2, b"a" * 32))])
    assert len(synced) == 1


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
