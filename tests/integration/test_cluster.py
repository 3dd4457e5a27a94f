"""A region on a cluster of brokers: it goes on without one of them, and whoever was there moves."""

import asyncio
import os
import signal
import time

import pytest
from kcm._internal.transport import open_nats
from kcm.errors import Unavailable
from kcm_broker.roles import Account, Role
from kcm_deployment import settings_files
from kcm_deployment.broker_files import SETUP
from kcm_devsystem import processes, setup, topology
from kcm_devsystem.broker_users import Users
from kcm_devsystem.configs import bus_files, visitor
from kcm_runtime.config import BusAddress, load
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.streams import put
from kcm_runtime.toml_text import to_toml
from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError

from tests.audit_rig import until
from tests.integration.living import connected, eventually

REGION = "eu-de"


@pytest.fixture
def cluster(tmp_path):
    plan, entries = topology.start(
        tmp_path, [REGION], die_with_parent=True, users=Users(visitor=True), nodes={REGION: 3}
    )
    running = {entry.process.name: entry.process for entry in entries}
    yield plan, running
    processes.stop(running.values())


def address_of(plan) -> BusAddress:
    return visitor(plan, REGION)


async def provisioned(plan):
    path = plan.root / "provision.toml"
    buses = (
        bus_files(plan, REGION, Role.PROVISIONER, account, SETUP)
        for account in (Account.REGION, Account.VAULT)
    )
    path.write_text(to_toml(settings_files.provisioning(REGION, *buses, SETUP, 3)))
    await setup.provision(load(setup.ProvisionConfig, str(path)))


def end(process):
    os.kill(process.pid, signal.SIGKILL)
    until = time.monotonic() + 10
    while processes.is_running(process):
        assert time.monotonic() < until
        time.sleep(0.01)


async def test_a_node_that_dies_is_left_for_another_and_nothing_stored_is_lost(cluster):
    plan, running = cluster
    await provisioned(plan)
    async with connected(address_of(plan)) as connection:
        info = await connection.jetstream().stream_info(subjects.CONTROL_STREAM)
        assert info.config.num_replicas == 3
        subject = subjects.control_lease(REGION, "core-x", bytes(16))
        first = await put(connection, subject, b"before")
        port = connection.client.connected_url.port
        (used,) = [spec for spec in plan.servers if spec.port == port]
        end(running[used.server_name])

        async def stored_again():
            try:
                return await put(connection, subject, b"after") > first
            except KcmError:
                return False

        await eventually(stored_again, within_s=30)
        assert connection.client.connected_url.port != port


async def test_who_leaves_a_node_goes_to_another_with_its_subscriptions(cluster):
    plan, _ = cluster
    async with connected(address_of(plan)) as connection:
        heard, back = [], []

        async def hear(message):
            heard.append(message.data)

        await connection.subscribe("kcm.test", hear)
        connection.on_reconnect(lambda: back.append(connection.client.connected_url.port))
        for number in range(3):
            port = connection.client.connected_url.port
            await connection.move()
            await until(lambda number=number: len(back) > number)
            assert back[-1] != port
        await connection.publish("kcm.test", b"once")
        await connection.flush()
        await until(lambda: heard)
        assert heard == [b"once"]


async def test_a_compare_and_set_that_lost_is_a_conflict_however_it_is_said(cluster):
    """Of writers at the same moment, one is stored; a replicated stream says it in two ways."""
    plan, _ = cluster
    await provisioned(plan)
    connections = [Connection(address_of(plan), f"writer-{number}") for number in range(3)]
    for connection in connections:
        await connection.start()
    try:
        codes = set()
        for number in range(60):
            subject = subjects.control_hold(REGION, "tenant", number.to_bytes(16, "big"))
            results = await asyncio.gather(
                *(put(connection, subject, b"x", expected=0) for connection in connections),
                return_exceptions=True,
            )
            lost = [one for one in results if isinstance(one, BaseException)]
            assert len(lost) == len(connections) - 1
            codes |= {one.code for one in lost}
        assert codes == {Code.CONFLICT}
    finally:
        for connection in connections:
            await connection.close()


async def test_a_client_finds_a_node_that_lives_and_says_so_when_none_does(cluster):
    plan, running = cluster
    end(running["eu-de-1"])
    transport = await open_nats(address_of(plan), "test")
    await transport.close()
    end(running["eu-de-2"])
    end(running["eu-de-3"])
    with pytest.raises(Unavailable, match="no program listens"):
        await open_nats(address_of(plan), "test")
