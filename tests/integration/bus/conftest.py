"""A real broker for each test, and a connection to it."""

import pytest

from tests.integration.bus.broker import running
from tests.integration.living import connected


@pytest.fixture
def broker(tmp_path):
    with running(tmp_path) as one:
        yield one


@pytest.fixture
async def link(broker):
    async with connected(broker.address()) as connection:
        yield connection
