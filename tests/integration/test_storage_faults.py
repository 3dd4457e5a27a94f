"""A broker's disk goes bad: what the broker makes of it, and what is left of holds and records.

Each fault of a file once, on a region that has one broker, one Core and no other region to ask. The
promises: a hold that was acknowledged is in force, whatever the broker lost; every record opens, or
the refusal says what is gone and the documented commands bring it back.
"""

import shutil
from dataclasses import dataclass, replace

import pytest
from kcm_broker.roles import Account
from kcm_devsystem import processes, topology
from kcm_devsystem.broker_users import Users
from kcm_devsystem.configs import visitor
from kcm_runtime.clock import SystemClock
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.provision import provision_region
from kcm_runtime.nats.stream_follower import Follower, SequentialFollower
from kcm_runtime.nats.streams import put
from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from nats.js.errors import APIError

from tests.chaos import disks
from tests.chaos.disks import STREAMS, Act, Harm, Part
from tests.integration.living import EU, decrypt, eventually
from tests.integration.storage_rig import (
    CORE,
    GATEWAY,
    Region,
    answer,
    encrypt_once_served,
    says,
    settled,
    succeeded,
)


class Broker:
    """One region's only broker, whose files are harmed while it is down."""

    def __init__(self, root, plan, entries):
        self.root, self._plan = root, plan
        self._running = {entry.process.name: entry.process for entry in entries}
        self.store = root / "brokers" / EU

    def end(self):
        processes.stop([self._running[EU]])

    def start(self):
        self._running[EU] = topology.start_broker(self._plan, EU, die_with_parent=True)

    def stop(self):
        processes.stop(self._running.values())

    def connection(self):
        return Connection(visitor(self._plan, EU), "test")


@pytest.fixture
def broker(tmp_path):
    made = Broker(
        tmp_path, *topology.start(tmp_path, [EU], die_with_parent=True, users=Users(visitor=True))
    )
    yield made
    made.stop()


@pytest.mark.parametrize("hit", [3, 9], ids=["in the middle", "the last one"])
async def test_a_damaged_message_does_not_keep_a_follower_from_having_caught_up(broker, hit):
    """The broker counts it and cannot deliver it: it says for ever that there is more to come."""
    connection = broker.connection()
    await connection.start()
    await provision_region(connection, EU, vault_bus=connection)
    for number in range(10):
        subject = subjects.bucket_subject(subjects.REGISTRY_BUCKET, "tenant", f"t{number}")
        await put(connection, subject, b"%d" % number * 100)
    await connection.close()
    broker.end()
    stream = subjects.bucket_stream(subjects.REGISTRY_BUCKET)
    harm = Harm("block", "flip", hit * 100 + 70, stream, orderly=True)  # within its content
    assert disks.apply(broker.store, harm) == 1
    broker.start()
    connection = broker.connection()
    await connection.start()
    seen = []
    follower = Follower(
        connection,
        stream,
        subjects.bucket_all(subjects.REGISTRY_BUCKET),
        SequentialFollower(seen.append),
        SystemClock(),
    )
    try:
        await follower.start()
        assert [entry.sequence for entry in seen] == [n + 1 for n in range(10) if n != hit]
    finally:
        await follower.close()
        await connection.close()


@dataclass(frozen=True)
class Case:
    """A harm to all three streams, and what the broker makes of it."""

    part: Part
    act: Act
    place: int = 0
    orderly: bool = False
    missing: bool = False
    """Whether the broker does not know the streams any more, and the region is provisioned."""


CASES = {
    "a flipped bit in the first message": Case("block", "flip"),
    "a flipped bit in the middle": Case("block", "flip", 500),
    "a flipped bit after an orderly end": Case("block", "flip", 500, orderly=True),
    "another sequence": Case("block", "misnumber", 500),
    "another sequence after an orderly end": Case("block", "misnumber", 500, orderly=True),
    "another size": Case("block", "missize", 500),
    "another size after an orderly end": Case("block", "missize", 500, orderly=True),
    "an empty block": Case("block", "truncate"),
    "half a block": Case("block", "truncate", 500),
    "half a block after an orderly end": Case("block", "truncate", 500, orderly=True),
    "an earlier block": Case("block", "roll-back"),
    "an earlier block after an orderly end": Case("block", "roll-back", orderly=True),
    "a flipped bit in the index": Case("state", "flip", 500, orderly=True),
    "half an index": Case("state", "truncate", 500, orderly=True),
    "a flipped bit in the description": Case("meta", "flip", 500, missing=True),
    "half a description": Case("meta", "truncate", 500, missing=True),
    "forgotten streams": Case("stream", "forget", missing=True),
}


@pytest.fixture(scope="module")
def region():
    with Region.started(regions=(EU,), cores=1) as made:
        yield made


async def in_the_end(region, case, holds):
    """Wait for a condition; behind an orderly end restart the broker for it, as the runbook says.

    Until then the broker may acknowledge a repair of a damaged message and not have it.
    """
    try:
        await eventually(holds, within_s=10 if case.orderly else 20)
    except AssertionError:
        if not case.orderly:
            raise
        region.sigkill(EU)
        await region.start_broker()
        await eventually(holds, within_s=30)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_a_bad_disk_loses_no_hold_and_no_record(region, case):
    kept = await region.new_tenant()
    dark = await region.new_tenant()
    async with region.app() as app:
        records = (await encrypt_once_served(app, kept, [b"kept"])).records
        secret = (await encrypt_once_served(app, dark, [b"dark"])).records
    earlier = region.directory / "earlier"
    shutil.rmtree(earlier, ignore_errors=True)
    # Of a broker that is idle, and without the kill. What it is about to rename may vanish.
    shutil.copytree(region.store, earlier, ignore=shutil.ignore_patterns("*.tmp"))
    hold = await region.killed(dark)
    await region.down(orderly=case.orderly)
    harms = [Harm(case.part, case.act, case.place, s, orderly=case.orderly) for s in STREAMS]
    assert sum(disks.apply(region.store, harm, earlier) for harm in harms) >= 1
    if case.act in {"misnumber", "missize"} and case.orderly:
        # With its index, the broker does not find the messages, and may search without an end.
        for harm in harms:
            for index in disks.files(region.store, replace(harm, part="state")):
                index.unlink()
    await region.start_broker()
    assert await region.provisioned() == (set(STREAMS) if case.missing else set())
    for name in (CORE, GATEWAY):
        await region.restart(name)
    assert (await region.holds())[hold] is False
    async with region.app() as app:
        # From the second store, which has the registry, too. Behind an orderly end the broker may
        # count messages that it cannot read, and take nothing before it is restarted.
        lost = (Code.UNKNOWN_TENANT, Code.UNKNOWN_SERVICE) if case.orderly else ()
        assert (await settled(app, dark, secret))[0] in (Code.TENANT_KILLED, *lost)
        assert (await settled(app, kept, records))[0] in (Code.OK, *lost)
        try:
            await region.sign_again(kept, dark)
        except KcmError as error:
            assert error.code is Code.UNAVAILABLE
            assert "restart the broker" in error.detail
            region.sigkill(EU)
            await region.start_broker()
            await eventually(lambda: succeeded(region.sign_again(kept, dark)))
        await in_the_end(region, case, lambda: says(app, dark, secret, Code.TENANT_KILLED))
        await in_the_end(region, case, lambda: says(app, kept, records, Code.OK))
        assert (await decrypt(app, kept, records)).plaintexts == [b"kept"]
        await region.lift(hold)
        await in_the_end(region, case, lambda: says(app, dark, secret, Code.OK))
        if case.missing:  # what was provisioned outlives the next restart, too
            region.sigkill(EU)
            await region.start_broker()
            assert await region.provisioned() == set()


ALIVE = {
    name: CASES[name]
    for name in (
        "a flipped bit in the first message",
        "a flipped bit after an orderly end",
        "half a block after an orderly end",
        "an earlier block",
        "half a description",
        "forgotten streams",
    )
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("case", ALIVE.values(), ids=ALIVE)
async def test_whoever_lives_through_it_gives_the_stream_its_holds_back(region, case):
    """The Core is not restarted. Then one without a memory learns the hold from the stream."""
    dark = await region.new_tenant()
    async with region.app() as app:
        secret = (await encrypt_once_served(app, dark, [b"dark"])).records
    earlier = region.directory / "earlier"
    shutil.rmtree(earlier, ignore_errors=True)
    shutil.copytree(region.store, earlier)
    hold = await region.killed(dark)
    await region.end_broker(orderly=case.orderly)
    harms = [Harm(case.part, case.act, case.place, s, orderly=case.orderly) for s in STREAMS]
    assert sum(disks.apply(region.store, harm, earlier) for harm in harms) >= 1
    await region.start_broker()
    await region.end_broker(orderly=False)  # as the runbook says: it has to know what it lost
    await region.start_broker()
    assert await region.provisioned() == (set(STREAMS) if case.missing else set())
    await eventually(lambda: succeeded(region.sign_again(dark)), within_s=30)
    async with region.app() as app:
        assert (await settled(app, dark, secret))[0] is Code.TENANT_KILLED

    async def stored():
        return await region.stored(hold)

    await eventually(stored, within_s=30)
    region.sigkill(CORE)
    shutil.rmtree(region.directory / "state" / CORE / "holds")
    await region.restart(CORE)
    assert (await region.holds())[hold] is False
    async with region.app() as app:
        assert (await settled(app, dark, secret))[0] is Code.TENANT_KILLED
        await region.lift(hold)
        await eventually(lambda: says(app, dark, secret, Code.OK))


async def _empty_keys(region):
    """A purge is refused; a stream can still be deleted, and made again as it was."""
    async with region.visitor(Account.VAULT) as connection:
        broker, stream = connection.jetstream(), subjects.bucket_stream(subjects.KEYS_BUCKET)
        with pytest.raises(APIError, match="purge not permitted"):
            await broker.purge_stream(stream)
        config = (await broker.stream_info(stream)).config
        await broker.delete_stream(stream)
        await broker.add_stream(config)


async def _garble_keys(region):
    async with region.visitor(Account.VAULT) as connection:
        bucket = await connection.jetstream().key_value(subjects.KEYS_BUCKET)
        for key in await bucket.keys():
            await bucket.put(key, b"\xc1 something else")


@pytest.mark.timeout(90)
@pytest.mark.parametrize("harm", [_empty_keys, _garble_keys], ids=["emptied", "garbled"])
async def test_lost_wrapped_keys_are_named_and_come_back_with_the_second_store(region, harm):
    """Of the bucket alone: healed. Of both: the refusal says what to restore, and that helps."""
    tenant = await region.new_tenant()
    store = region.directory / "keystore" / EU
    backup = region.directory / "backup"
    shutil.rmtree(backup, ignore_errors=True)
    async with region.app() as app:
        records = (await encrypt_once_served(app, tenant, [b"kept"])).records
        await harm(region)
        region.sigkill(CORE)
        await region.restart(CORE)
        await eventually(lambda: says(app, tenant, records, Code.OK))  # from the second store
        shutil.copytree(store, backup)
        region.sigkill(CORE)
        await harm(region)
        for path in store.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        await region.restart(CORE)
        said = []

        async def named():
            said.append(await answer(app, tenant, records))
            return "restore the second key store from its backup" in said[-1][1]

        await eventually(named)
        assert said[-1][0] in (Code.UNKNOWN_TENANT, Code.UNAVAILABLE)
        shutil.copytree(backup, store, dirs_exist_ok=True)
        await eventually(lambda: says(app, tenant, records, Code.OK))
        assert (await decrypt(app, tenant, records)).plaintexts == [b"kept"]
