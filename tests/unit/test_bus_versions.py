"""A broker with known weaknesses is refused at the start and left later, unless it is allowed."""

import asyncio
import logging

import pytest
from kcm_broker.server_configuration import LEAF_VERSION_MIN
from kcm_devsystem.server_binary import nats_server_binary
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.server_version import PATCHED, check_version
from kcm_runtime.nats.stream_protection import Unfit

from tests.fakes.broker import FirstWords

OLD, NEW = "2.12.6", "2.15.1"
ENOUGH_S = 20.0


@pytest.fixture
async def broker():
    one = FirstWords(NEW)
    await one.start()
    yield one
    await one.close()


async def until(condition):
    async with asyncio.timeout(ENOUGH_S):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "version",
    [
        "2.12.7",
        "2.12.12",
        "2.12.8-RC.1",
        "2.14.0",
        "2.14.3",
        "2.15.1",
        "v2.15.1",
        "2.16.0-dev",
        "3.0.0",
    ],
)
def test_a_server_that_is_new_enough_passes(version):
    assert check_version(version) == ""


@pytest.mark.parametrize(
    "version",
    ["2.9.10", "2.11.99", "2.12.0", "2.12.6", "2.12.7-RC.1", "2.13.9", "2.14.0-RC.2", "1.99.99"],
)
def test_a_server_with_known_weaknesses_is_refused_with_its_version_and_what_to_do(version):
    with pytest.raises(
        Unfit, match=r"known vulnerabilities: 2\.14\.0 or later.*allow_old_broker"
    ) as caught:
        check_version(version)
    assert version in str(caught.value)
    assert version in check_version(version, allow_old=True)


@pytest.mark.parametrize(
    "version", [None, "", 2, "new", "2.15", "2.15.1\n", "2.15.1 secret", ["2"]]
)
def test_a_version_that_cannot_be_read_is_refused_and_not_shown(version):
    with pytest.raises(Unfit, match="reports no valid version") as caught:
        check_version(version)
    assert "secret" not in str(caught.value)
    assert check_version(version, allow_old=True)


def test_the_backbone_lets_no_other_leaf_in_and_the_installed_server_passes():
    assert ".".join(map(str, PATCHED)) == LEAF_VERSION_MIN
    assert nats_server_binary()


async def test_a_start_is_refused_by_an_old_broker_and_leaves_no_connection(broker, tmp_path):
    broker.version = OLD
    connection = Connection(broker.address(tmp_path), "test")
    with pytest.raises(Unfit, match=OLD):
        await asyncio.wait_for(connection.start(), ENOUGH_S)
    assert not connection.connected
    assert broker.came == 1


async def test_an_old_broker_that_is_allowed_is_told_in_the_log(broker, tmp_path, caplog):
    broker.version = OLD
    connection = Connection(broker.address(tmp_path, allow_old_broker=True), "test")
    with caplog.at_level(logging.WARNING):
        await asyncio.wait_for(connection.start(), ENOUGH_S)
    assert connection.connected
    assert OLD in caplog.text
    await connection.close()


async def test_a_broker_that_comes_back_too_old_is_left_until_it_is_new_enough(
    broker, tmp_path, caplog
):
    connection = Connection(broker.address(tmp_path), "test")
    told = []
    connection.on_reconnect(lambda: told.append(broker.version))
    await connection.start()
    assert connection.connected
    broker.version = OLD
    with caplog.at_level(logging.WARNING):
        broker.drop()
        await until(lambda: broker.came >= 3)  # once by the library, then by ours, which refuses
    assert OLD in caplog.text
    assert told == []
    broker.version = NEW
    await until(lambda: told)
    assert told == [NEW]
    await connection.close()
