"""One stand for each provider and module of tests, and an unsealer that reaches it.

The tests of a module share an event loop, and the fork server that serves their stand: it has
imported the provider's SDK once, which takes a second of computing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest
import pytest_asyncio
from kcm_core.providers.state import L1State
from kcm_core.unsealer.client import Unsealer
from kcm_core.unsealer.servers import Servers

from tests.integration.unsealing import SharedServers
from tests.l1.stand import Stand, Trouble
from tests.l1.stands import USED


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of a module of this folder in one event loop."""
    for item in items:
        if item.path.parent == Path(__file__).parent and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)


@pytest.fixture(scope="module")
def stands(tmp_path_factory) -> Iterator[Callable[[str], Stand]]:
    """Make a provider's stand once for a module: starting a cloud's server takes seconds."""
    with ExitStack() as running:

        @cache
        def made(name: str) -> Stand:
            directory = tmp_path_factory.mktemp("l1") / "stand"
            return running.enter_context(USED[name](directory))

        yield made


@pytest.fixture(scope="module", params=sorted(USED))
def shared(request, stands: Callable[[str], Stand]) -> Stand:
    """A stand that the tests of a module share."""
    return stands(request.param)


@pytest.fixture
def stand(shared: Stand) -> Iterator[Stand]:
    """The module's stand, with everything in order before and after the test."""
    yield shared
    if shared.directory is not None and shared.name != "pkcs11":
        shared.trouble(Trouble.NONE)
        shared.settles(0)
        shared.put(L1State.ENABLED)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servers(stands: Callable[[str], Stand]) -> AsyncIterator[Callable[[str], Servers]]:
    """Make the fork server of a stand once for a module."""
    running: dict[str, SharedServers] = {}

    def made(name: str) -> Servers:
        if name not in running:
            running[name] = SharedServers(stands(name).environment)
        return running[name]

    yield made
    for server in running.values():
        await server.end()


@pytest_asyncio.fixture(loop_scope="module")
async def unsealer(stand: Stand, servers: Callable[[str], Servers]) -> AsyncIterator[Unsealer]:
    """An unsealer without a past: no key is in a pause, and no PIN was wrong."""
    made = Unsealer(stand.environment, servers=servers(stand.name))
    await made.start()
    yield made
    await made.close()
