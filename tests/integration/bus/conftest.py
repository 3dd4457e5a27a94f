"""A real broker for each test, and a connection to it."""

import pytest
from kcm_devsystem import processes, topology
from kcm_runtime.nats.connection import Connection

from tests.integration.bus.broker import REGION, Broker


@pytest.fixture
def broker(tmp_path):
    made, entries = topology.start(tmp_path, [REGION], die_with_parent=True)
    one = Broker(made, entries[1].process, entries[0].process)
    yield one
    processes.stop([one.process])
    processes.stop([one.backbone])


@pytest.fixture
async def link(broker):
    connection = Connection(broker.address(), "test")
    await connection.start()
    yield connection
    await connection.close()
