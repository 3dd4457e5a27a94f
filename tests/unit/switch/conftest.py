"""Everything here runs in virtual time."""

from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.virtual import VirtualLoop
from tests.unit.switch.rig import Incarnation, System
from tests.unit.switch.roster_rig import rosters
from tests.unit.switch.statements import LINK, tenant


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Callable[[], Any]]:
    """Tests of this directory get a loop whose time jumps."""
    return {"virtual": VirtualLoop}


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    """Three regions without incarnations."""
    made = System(tmp_path)
    yield made
    await made.close()


@pytest.fixture
def incarnation(system: System) -> Incarnation:
    """A Core without a coordinator that knows a tenant, and takes later rosters."""
    made = system.incarnation("core-eu-1", rosters=rosters())
    made.learn(LINK, tenant())
    return made
