"""A real broker for each test, and a connection to it."""

import pytest
from kcm_runtime.nats.connection import Connection

from tests.integration.bus.broker import running


@pytest.fixture
def broker(tmp_path):
    with running(tmp_path) as one:
        yield one


@pytest.fixture
async def link(broker):
    connection = Connection(broker.address(), "test")
    await connection.start()
    yield connection
    await connection.close()
