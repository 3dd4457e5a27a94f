"""One unseal at a time for each L1, a probe beside it, and a pause after an L1 that is silent."""

import asyncio

import pytest
from kcm_core.providers.state import L1Error, L1State
from kcm_core.unsealer.key_gate import LINE_S, PAUSES_S, TOLD_EVERY_S, Turns

from tests.fakes.virtual import let_pass

URI = "softkey:/key"


@pytest.fixture
def turns():
    return Turns(lambda: asyncio.get_running_loop().time())


class Key:
    """A key that takes its time, and counts."""

    def __init__(self, turns):
        self.turns, self.at_once, self.most, self.calls = turns, 0, 0, 0
        self.error = None

    async def use(self, uri=URI, *, probe=False, takes_s=1.0):
        async with self.turns.take(uri, probe=probe):
            self.calls += 1
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            await asyncio.sleep(takes_s)
            self.at_once -= 1
            if self.error is not None:
                raise self.error


async def outcomes(*calls):
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_a_thousand_unseals_of_one_key_are_one_at_a_time_and_all_done(turns, caplog):
    caplog.set_level("INFO")
    key = Key(turns)
    began = asyncio.get_running_loop().time()
    assert set(await outcomes(*(key.use(takes_s=0.02) for _ in range(1000)))) == {None}
    assert (key.most, key.calls) == (1, 1000)
    told = [record.message for record in caplog.records]
    spent = asyncio.get_running_loop().time() - began
    assert 2 <= len(told) <= spent / TOLD_EVERY_S + 1
    assert "opened, " in told[-1]
    assert "softkey" in told[-1]
    assert URI not in caplog.text


async def test_a_probe_does_not_stand_in_the_line(turns):
    key = Key(turns)
    unseals = [asyncio.ensure_future(key.use()) for _ in range(20)]
    await let_pass(0.5)
    began = asyncio.get_running_loop().time()
    await key.use(probe=True, takes_s=0.1)
    assert asyncio.get_running_loop().time() - began == pytest.approx(0.1)
    assert key.most == 2
    await outcomes(*unseals)


async def test_another_key_has_a_line_of_its_own(turns):
    key = Key(turns)
    await outcomes(key.use(), key.use("softkey:/other"))
    assert key.most == 2


async def test_who_waits_too_long_is_told_so(turns):
    key = Key(turns)
    first = asyncio.ensure_future(key.use(takes_s=LINE_S + 5))
    await let_pass(0.1)
    (error,) = await outcomes(key.use())
    assert error.state is L1State.UNREACHABLE
    assert error.detail == f"no turn within {LINE_S:g} s: many calls wait for the key"
    await first
    await key.use()


async def test_a_key_that_is_silent_is_asked_a_bounded_number_of_times(turns):
    key = Key(turns)
    key.error = L1Error(L1State.UNREACHABLE, "nothing", cls="ReadTimeout")
    done = await outcomes(*(key.use(takes_s=0.01) for _ in range(1000)))
    assert {one.state for one in done} == {L1State.UNREACHABLE}
    assert key.calls == 2  # the first failure may have been an accident
    for _ in range(100):
        await let_pass(1.0)
        await outcomes(*(key.use(takes_s=0.01) for _ in range(10)))
    assert key.calls <= 100 / PAUSES_S[-1] + len(PAUSES_S) + 2


@pytest.mark.parametrize(
    "error",
    [
        L1Error(L1State.DISABLED, cls="DisabledException"),
        L1Error(L1State.INVALID, cls="InvalidTag"),
        L1Error(L1State.UNREACHABLE, "our own word"),
    ],
)
async def test_an_answer_is_no_reason_for_a_pause(turns, error):
    key = Key(turns)
    key.error = error
    await outcomes(*(key.use(takes_s=0.01) for _ in range(10)))
    assert key.calls == 10


async def test_the_first_answer_ends_the_pauses(turns):
    key = Key(turns)
    key.error = L1Error(L1State.UNREACHABLE, cls="ReadTimeout")
    for _ in range(10):
        await outcomes(key.use(takes_s=0.01))
    await let_pass(PAUSES_S[-1])
    key.error = None
    await key.use()
    calls = key.calls
    key.error = L1Error(L1State.UNREACHABLE, cls="ReadTimeout")
    await outcomes(key.use(), key.use())
    assert key.calls == calls + 2


async def test_who_is_cancelled_in_the_line_leaves_it(turns):
    key = Key(turns)
    first = asyncio.ensure_future(key.use())
    waiting = [asyncio.ensure_future(key.use()) for _ in range(3)]
    await let_pass(0.5)
    waiting[0].cancel()
    await outcomes(first, *waiting)
    assert key.calls == 3
