"""A long stream does not end at what passes, and ends at what does not."""

import pytest
from kcm_gateway.selftest import PATIENCE_S, PAUSE_S, patiently
from kcm_schemas.codes import RETRYABLE, Code, KcmError

from tests.fakes.bus import Clock


class Call:
    """Fails with a code until a moment."""

    def __init__(self, clock, code, until):
        self.clock, self.code, self.until = clock, code, until
        self.made = 0

    async def __call__(self):
        self.made += 1
        if self.clock.now < self.until:
            raise KcmError(self.code)
        return "done"


@pytest.mark.parametrize("code", sorted(RETRYABLE))
async def test_what_passes_is_tried_again(code):
    clock = Clock()
    call = Call(clock, code, clock.now + PATIENCE_S / 2)
    assert await patiently(call, clock, clock.sleep) == "done"
    assert call.made == pytest.approx(PATIENCE_S / 2 / PAUSE_S, abs=2)


async def test_what_lasts_is_told_within_a_bound():
    clock = Clock()
    began = clock.now
    with pytest.raises(KcmError, match="unavailable"):
        await patiently(Call(clock, Code.UNAVAILABLE, began + 1000), clock, clock.sleep)
    assert clock.now - began <= PATIENCE_S


async def test_a_decision_is_told_at_once():
    clock = Clock()
    call = Call(clock, Code.TENANT_KILLED, clock.now + 1000)
    with pytest.raises(KcmError, match="tenant_killed"):
        await patiently(call, clock, clock.sleep)
    assert call.made == 1
