"""Sessions that end, or make room, while a request waits."""

import pytest
from kcm_schemas.codes import Code
from kcm_sealing.session import LIFETIME_MAX_MS

from tests.unit.core_rig import LINK, SERVICE, TENANT, World
from tests.unit.test_core_wrapping import refused, unwrap, wrapped


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.fixture
async def core(world):
    return await world.core().made()


async def test_a_session_that_made_room_while_its_request_waited_is_opened_again(world, core):
    """Not the tenant was purged: it must not be told as if it were."""
    keys, _, blobs = await wrapped(core)
    core.vault.purge("acme")

    async def crowd(operation, uri):
        core.sessions.close()

    world.unsealer.hook = crowd
    assert (await unwrap(core, blobs))[2] == keys


async def test_a_session_that_was_closed_while_the_registry_was_fetched_is_opened_again(
    world, core, monkeypatch
):
    """The tenant was not purged: no event may say so."""
    keys, _, blobs = await wrapped(core)
    late = world.core("core-eu-2")
    late.learn(LINK)

    async def fetch(tenant, service):
        late.learn(TENANT, SERVICE)
        late.sessions.close()

    monkeypatch.setattr(late.wrapping, "_fetch", fetch)
    assert (await unwrap(late, blobs))[2] == keys


async def test_a_ticket_that_ended_while_its_request_waited_serves_no_more(
    world, core, monkeypatch
):
    _, _, blobs = await wrapped(core)
    core.vault.purge("acme")
    late_ms = 0

    class Clock:
        """The world's, but for the time of day."""

        elapsed = world.clock.elapsed

        def unix_ms(self):
            return world.clock.unix_ms() + late_ms

    async def sleep(operation, uri):
        nonlocal late_ms
        late_ms = LIFETIME_MAX_MS

    monkeypatch.setattr(core.wrapping, "_clock", Clock())
    world.unsealer.hook = sleep
    # The Gateway asks again with a new ticket; by the Core's clock its deadline has passed, too.
    assert await refused(unwrap(core, blobs)) is Code.DEADLINE_EXCEEDED
