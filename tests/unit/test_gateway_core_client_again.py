"""What a Gateway asks a Core again before anybody hears of it, and how often at most."""

from contextlib import suppress
from itertools import pairwise

import pytest
from kcm_gateway.core_client import AWAY_S, CoreClient, Unwrapping
from kcm_gateway.keys.lease import SHORTEST_S
from kcm_keymem.arena import ScratchPool
from kcm_keymem.random import SystemKeyRandomness
from kcm_schemas.codes import RETRYABLE, Code, KcmError

from tests.fakes.holding import unheld
from tests.fakes.refusals import failure
from tests.unit.core_rig import World, instance_context, is_request, lease_of
from tests.unit.refusals import refusal, refused
from tests.unit.test_gateway_core_client import Broker, fresh, wrap

LONG_S = 3600.0


@pytest.fixture
async def core(tmp_path):
    return await World(tmp_path).core().made()


@pytest.fixture
def broker(core):
    return Broker(core)


@pytest.fixture
def client(core, broker):
    return core.client(ask=broker)


def client_of(core, ask, **ports):
    """A client with other ports than the Core's clock and a wire that works."""
    me, clock = instance_context("gw-eu"), core.world.clock
    core.incarnations.take(lease_of(me), 1, clock.elapsed())
    ports = {"clock": clock, "sleep": clock.sleep} | ports
    return CoreClient(ask, me=unheld(me), randomness=SystemKeyRandomness(), timeout_s=2.0, **ports)


def own_lease(core, seconds):
    """The Core's own lease ends in so many seconds, unless it is renewed."""
    began = core.freshness.lease.moment(core.freshness.lease.position)
    core.freshness.lease.length_s = core.world.clock.elapsed() - began + seconds


# A lease that is about to end


async def test_an_answer_of_a_core_whose_own_lease_is_about_to_end_is_asked_for_once_more(
    core, broker, client
):
    await wrap(client)
    own_lease(core, SHORTEST_S / 2)

    def renewed(body, answer):
        own_lease(core, LONG_S)
        return answer

    broker.lies = renewed
    lease, _ = await wrap(client)
    assert len(broker.bodies) == 3
    assert lease.until - lease.sent == 10.0


async def test_when_the_second_is_no_better_the_error_says_why_and_can_be_retried(
    core, broker, client
):
    await wrap(client)
    own_lease(core, 0.0005)
    error = await refusal(wrap(client))
    assert error.code is Code.UNAVAILABLE
    assert error.code in RETRYABLE
    assert "own lease is about to end" in error.detail
    assert len(broker.bodies) == 3


async def test_an_answer_that_was_held_up_for_most_of_its_lease_is_asked_for_once_more(
    core, broker, client
):
    delays = iter([8.0, 1.0])

    def late(body, answer):
        core.world.clock.now += next(delays)
        return answer

    broker.lies = late
    lease, _ = await wrap(client)
    assert core.world.clock.now - lease.sent == 1.0
    delays = iter([10.0, 10.0])
    assert await refused(wrap(client)) is Code.DEADLINE_EXCEEDED
    assert len(broker.bodies) == 4


async def test_keys_of_an_answer_that_is_not_used_are_wiped_before_the_next_is_awaited(
    core, broker
):
    """A purge would not reach them."""
    lent = []

    class Scratch(ScratchPool):
        def take(self, size):
            lent.append(super().take(size))
            return lent[-1]

    client = client_of(core, broker, scratch=Scratch())
    _, blobs = await client.wrap("acme", "crm", "record", fresh())
    seen = []

    def late(body, answer):
        with lent[0].use() as view:
            seen.append(any(view))
        core.world.clock.now += 9.0
        return answer

    broker.lies = late
    out = memoryview(bytearray(64))
    unwrapping = client.unwrap(Unwrapping("acme", "crm", "record", 1, blobs), out)
    assert await refused(unwrapping) in RETRYABLE
    assert seen == [False, False]
    assert not any(out)
    with lent[0].use() as view:
        assert not any(view)


# A connection that comes back


async def test_a_connection_that_is_made_anew_is_waited_for(core, broker):
    clock = core.world.clock
    gone_until = clock.now + 0.3  # the waits may be half as long, or reach the bound
    asked = []

    async def reconnecting(subject, body, timeout_s):
        asked.append(subject)
        if clock.now < gone_until:
            raise KcmError(Code.UNAVAILABLE, "the broker cannot be reached")
        return await broker(subject, body, timeout_s)

    lease, _ = await wrap(client_of(core, reconnecting))
    assert lease.sent >= gone_until  # the lease is that of the request that was answered
    assert len(asked) > 2


async def test_a_broker_that_stays_away_is_an_error_within_a_bound(core):
    began = core.world.clock.now
    asked = []

    async def away(subject, body, timeout_s):
        asked.append(core.world.clock.now)
        raise KcmError(Code.UNAVAILABLE, "no instance serves this at the moment")

    error = await refusal(wrap(client_of(core, away)))
    assert type(error) is KcmError
    assert (error.code, error.detail) == (Code.UNAVAILABLE, "no instance serves this at the moment")
    assert core.world.clock.now - began <= AWAY_S
    assert 4 < len(asked) <= 14, "each of two Cores, a few times"
    rounds = sorted(set(asked))
    gaps = [later - earlier for earlier, later in pairwise(rounds)]
    assert gaps == sorted(gaps)


@pytest.mark.parametrize("code", [Code.DEADLINE_EXCEEDED, Code.TOO_LARGE])
async def test_what_took_its_time_is_not_asked_again(core, code):
    asked = []

    async def slow(subject, body, timeout_s):
        if not is_request(subject):
            return await core.answer(subject, body)
        asked.append(body)
        core.world.clock.now += timeout_s
        raise KcmError(code)

    assert await refused(wrap(client_of(core, slow))) is code
    assert len(asked) == 1


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.BUSY])
async def test_a_cores_refusal_is_the_callers_to_retry(broker, client, code):
    broker.lies = lambda body, answer: failure(code)
    assert await refused(wrap(client)) in {code, Code.UNAVAILABLE}
    assert len(broker.bodies) == 1


# Sessions


async def test_no_session_is_used_so_late_that_it_ends_while_its_request_is_under_way(
    core, broker, client
):
    for _ in range(200):
        await wrap(client)
        session, _ = core.sessions.session("gw-eu", broker.sessions[-1])
        left_ms = session.keys.info.expiry_ms - core.world.clock.unix_ms()
        assert left_ms >= 30_000
        core.world.clock.now += 7.3


@pytest.mark.parametrize("step_s", [-400.0, -60.0, -3.0, 3.0, 60.0, 400.0, 3600.0])
async def test_a_session_is_replaced_when_the_wall_clock_was_set(core, broker, step_s):
    """Its ticket names a time of the other clock: a Core would believe it too long, or not."""

    class Stepped:
        offset = 0.0

        def elapsed(self):
            return core.world.clock.elapsed()

        def unix_ms(self):
            return core.world.clock.unix_ms() + int(self.offset * 1000)

    clock = Stepped()
    client = client_of(core, broker, clock=clock)
    await wrap(client)
    clock.offset = step_s
    with suppress(KcmError):  # the Core's clock is another matter
        await wrap(client)
    clock.offset = 0.0
    asked = len(broker.bodies)
    await wrap(client)
    await wrap(client)
    assert len(broker.bodies) == asked + 2  # no Core had to refuse one first
    assert len(set(broker.sessions[asked:])) == 1


async def test_a_clock_that_runs_a_little_wrong_replaces_nothing(core, broker):
    class Drifting:
        def elapsed(self):
            return core.world.clock.elapsed() * 0.999

        def unix_ms(self):
            return core.world.clock.unix_ms()

    client = client_of(core, broker, clock=Drifting())
    for _ in range(4):
        await wrap(client)
        core.world.clock.now += 70.0
    assert len(set(broker.sessions)) == 1


async def test_a_session_that_no_core_takes_is_told_with_what_to_compare(broker, client):
    broker.lies = lambda body, answer: failure(Code.UNKNOWN_SESSION)
    error = await refusal(wrap(client))
    assert error.code in RETRYABLE
    assert "clocks" in error.detail
    assert len(broker.bodies) == 2


@pytest.mark.parametrize("minutes", [-5, 5])
async def test_clocks_that_are_minutes_apart_are_named(core, broker, minutes):
    class Wrong:
        def elapsed(self):
            return core.world.clock.elapsed()

        def unix_ms(self):
            return core.world.clock.unix_ms() + minutes * 60_000

    error = await refusal(wrap(client_of(core, broker, clock=Wrong())))
    assert error.code in RETRYABLE
    assert "clock" in error.detail
    assert not broker.bodies
