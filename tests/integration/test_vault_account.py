"""The wrapped keys have a broker account of their own: only its connection reaches them."""

import asyncio
import logging

import pytest
from kcm.ops.errors import NotProvisionedError
from kcm.ops.provision import ProvisionConfig, provision
from kcm_broker.roles import Account, inbox_prefix
from kcm_core.assembly.production import production
from kcm_core.config import CoreConfig
from kcm_keymem.random import SystemKeyRandomness
from kcm_runtime.config import BusAddress
from kcm_runtime.nats import credentials
from kcm_runtime.nats.provision import (
    CORE_STREAMS,
    KEYS,
    VAULT_STREAMS,
    acknowledged,
    await_streams,
    check_streams,
)
from kcm_runtime.nats.store_health import Trouble
from kcm_schemas.codes import Code, KcmError

from tests.integration import broker_rig as rig
from tests.unit.core_rig import World
from tests.unit.keystore_records import SUBJECT, keys

MIB = 1 << 20
STORE = 64 * MIB
"""The room of the rig's server, for all accounts together."""


@pytest.fixture
async def region(tmp_path):
    async with rig.running(tmp_path) as one:
        yield one


def address(region, role, account, instance=""):
    """An account of the region's broker, as a configuration names it."""
    made = region.realm.user(rig.scope(role, account, instance))
    path = region.directory / f"{role}-{account}.creds"
    credentials.write(path, made)
    inbox = inbox_prefix(role, instance or made.key.public)
    ca = region.ca.directory / "ca.pem"
    return BusAddress(url=region.server.url, credentials=path, inbox=inbox, ca=ca)


def provisioning(region, **changes):
    told = {
        "region": "eu",
        "region_bus": address(region, "provisioner", "region"),
        "vault_bus": address(region, "provisioner", "vault"),
        "audit_bytes": MIB,
    }
    return ProvisionConfig(**told | changes)


def streams(region, account):
    """The streams of an account, by the server's directory."""
    public = region.realm.accounts[account].public
    place = region.server.directory / "streams" / "jetstream" / public / "streams"
    return {path.name for path in place.iterdir()} if place.is_dir() else set()


def outside(region, tmp_path):
    """The connections and stores of a Core, as in production."""
    place = tmp_path / "core"
    place.mkdir()
    world = World(place)
    me = world.core().me
    config = CoreConfig(
        instance=me.name,
        region=me.region,
        root_public="0" * 64,
        roster=tmp_path / "roster",
        identity=tmp_path / "identity",
        state_dir=world.state,
        key_store=world.directory,
        secrets={"seal_key": world.seal_key},
        region_bus=address(region, "core", "region", "core-1"),
        control_bus=address(region, "core", "control", "core-1"),
        vault_bus=address(region, "core", "vault", "core-1"),
    )
    return production(config, me, world.unsealer, world.clock, SystemKeyRandomness())


async def test_only_the_keys_are_created_in_the_vault(region):
    await provision(provisioning(region), 20)
    assert streams(region, Account.REGION) == set(CORE_STREAMS)
    assert streams(region, Account.VAULT) == set(VAULT_STREAMS) == {KEYS}
    await provision(provisioning(region), 20)  # and a repetition changes nothing
    assert streams(region, Account.REGION) == set(CORE_STREAMS)


async def test_an_audit_stream_leaves_the_keys_their_room_in_the_servers_store(region):
    with pytest.raises(NotProvisionedError, match="no room for an audit stream"):
        await provision(provisioning(region, audit_bytes=STORE - 8 * MIB), 2)
    assert streams(region, Account.VAULT) == {KEYS}
    await provision(provisioning(region, audit_bytes=STORE // 2), 20)


@pytest.mark.parametrize("account", ["region", "vault"])
async def test_the_bus_that_does_not_let_in_is_named(region, account):
    config = provisioning(region)
    address = config.region_bus if account == "region" else config.vault_bus
    stranger = rig.region_realm().user(rig.scope("provisioner", account))
    credentials.write(address.credentials, stranger)
    with pytest.raises(NotProvisionedError, match=rf"rejects .*\({account}_bus\)"):
        await provision(config, 2)
    assert not streams(region, Account.REGION)
    assert not streams(region, Account.VAULT)


async def test_a_core_keeps_its_keys_in_the_vault_alone(region, tmp_path):
    await provision(provisioning(region), 20)
    core = outside(region, tmp_path)
    store = core.ports.store
    try:
        await core.vault_bus.start()
        await await_streams(core.vault_bus, "eu", VAULT_STREAMS)
        await store.put_root(keys(1))  # there is no other connection yet
        assert await store.root("acme") == keys(1)
        await core.region_bus.start()
        await check_streams(core.region_bus, "eu", CORE_STREAMS)
        stored = await core.vault_bus.jetstream().get_last_msg(KEYS, SUBJECT)
        assert stored.data == await store.statement(("root", "acme"))
        with pytest.raises(KcmError):
            await acknowledged(core.region_bus, KEYS)
        await core.vault_bus.close()
        with pytest.raises(KcmError, match=r"\(vault_bus\)") as caught:
            await store.root("acme")
        assert caught.value.code is Code.UNAVAILABLE
    finally:
        await core.region_bus.close()
        await core.vault_bus.close()


async def test_a_vault_that_is_not_provisioned_is_waited_for_and_named(region, tmp_path, caplog):
    core = outside(region, tmp_path)
    try:
        await core.vault_bus.start()
        with caplog.at_level(logging.ERROR):
            waiting = asyncio.create_task(await_streams(core.vault_bus, "eu", VAULT_STREAMS))
            await rig.until(lambda: caplog.records)
        (record,) = caplog.records
        assert f"no stream {KEYS}" in record.getMessage()
        assert record.kcm_fields["bus"] == "vault_bus"
        await provision(provisioning(region), 20)
        await asyncio.wait_for(waiting, 20)
    finally:
        await core.vault_bus.close()


async def test_trouble_of_the_vault_is_seen_where_the_regions_is(region, tmp_path):
    core = outside(region, tmp_path)
    core.vault_bus.stores.full(SUBJECT)
    assert core.region_bus.stores.troubles == {KEYS: Trouble.FULL}
