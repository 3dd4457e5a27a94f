"""Sessions that end, or make room, while a request waits."""

import pytest
from kcm_schemas import limits, subjects
from kcm_schemas.codes import RETRYABLE, Code

from tests.fakes.bus import Clock
from tests.unit.core_rig import LINK, SERVICE, TENANT
from tests.unit.refusals import refused
from tests.unit.test_core_wrapping import unwrap, wrapped


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
    world, core
):
    """The tenant was not purged: no event may say so."""
    keys, _, blobs = await wrapped(core)
    late = world.core("core-eu-2")
    late.learn(LINK)

    fetched = []

    async def meanwhile(operation, subject):
        if subject.startswith(f"$KV.{subjects.REGISTRY_BUCKET}."):
            fetched.append(subject)
            late.learn(TENANT, SERVICE)
            late.sessions.close()

    world.bus.stream.before = meanwhile
    assert (await unwrap(late, blobs))[2] == keys
    assert fetched


class CoreClock(Clock):
    """A Core's clock. Its time of day is not that of the Gateways."""

    late_ms = 0

    def unix_ms(self):
        return super().unix_ms() + self.late_ms


async def test_a_ticket_that_ended_while_its_request_waited_serves_no_more(world):
    gateways = world.clock
    world.clock = CoreClock(gateways.now)
    core = await world.core().made()
    client = core.client(clock=gateways)
    _, _, blobs = await wrapped(core)
    core.vault.purge("acme")

    async def sleep(operation, uri):
        world.clock.late_ms = limits.TICKET_MAX_MS

    world.unsealer.hook = sleep
    # By the Core's clock, the key for the new ticket and the deadline are of another time, too.
    assert await refused(unwrap(core, blobs, client=client)) in RETRYABLE
    assert [fields["code"] for kind, fields in core.events if kind == "keys.unwrap"] == [
        Code.UNKNOWN_SESSION
    ]
