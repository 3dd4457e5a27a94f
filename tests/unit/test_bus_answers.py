"""What a refusal of the store means to whoever asked."""

import pytest
from kcm_bus.answers import is_conflict
from kcm_bus.streams import put
from kcm_schemas.codes import Code, KcmError
from nats.js import errors as js_errors

from tests.fakes.bus import Bus


@pytest.mark.parametrize("err_code", [10071, 10164])
async def test_a_lost_compare_and_set_is_a_conflict_in_both_words(err_code):
    bus = Bus()

    async def lose(operation, subject):
        raise js_errors.BadRequestError(code=400, err_code=err_code)

    bus.stream.before = lose
    with pytest.raises(KcmError) as info:
        await put(bus, "s.a", b"x", expected=0)
    assert info.value.code is Code.CONFLICT


def test_no_other_refusal_is_a_conflict():
    for err_code in (None, 10003, 10023, 10047, 10059, 10077, 10110):
        assert not is_conflict(js_errors.APIError(code=400, err_code=err_code))
