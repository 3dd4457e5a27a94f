"""One stand for each provider and module of tests, and an unsealer that reaches it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from kcm_core.providers.state import L1State
from kcm_core.unsealer.client import Unsealer

from tests.l1.stand import Stand, Trouble
from tests.l1.stands import USED


@pytest.fixture(scope="module", params=sorted(USED))
def shared(request, tmp_path_factory) -> Iterator[Stand]:
    """A stand that the tests of a module share: starting a cloud's server takes seconds."""
    with USED[request.param](tmp_path_factory.mktemp("l1") / "stand") as stand:
        yield stand


@pytest.fixture
def stand(shared: Stand) -> Iterator[Stand]:
    """The module's stand, with everything in order before and after the test."""
    yield shared
    if shared.directory is not None and shared.name != "pkcs11":
        shared.trouble(Trouble.NONE)
        shared.settles(0)
        shared.put(L1State.ENABLED)


@pytest.fixture
async def unsealer(stand: Stand) -> AsyncIterator[Unsealer]:
    made = Unsealer(stand.environment)
    await made.start()
    yield made
    await made.close()
