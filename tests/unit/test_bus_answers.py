"""What a refusal of the store means to whoever asked."""

import pytest
from kcm_runtime.nats.jetstream_errors import is_conflict
from kcm_runtime.nats.store_health import CAUSE, SILENT_AFTER, Trouble
from kcm_runtime.nats.streams import put
from kcm_schemas.codes import Code, KcmError
from nats import errors as nats_errors
from nats.js import errors as js_errors

from tests.fakes.bus import Bus, nothing


@pytest.mark.parametrize("err_code", [10071, 10164])
async def test_a_lost_compare_and_set_is_a_conflict_in_both_words(err_code):
    bus = Bus()

    async def lose(operation, subject):
        raise js_errors.BadRequestError(code=400, err_code=err_code)

    bus.stream.before = lose
    with pytest.raises(KcmError) as info:
        await put(bus, "s.a", b"x", expected=0)
    assert info.value.code is Code.CONFLICT


@pytest.mark.parametrize("err_code", [10002, 10023, 10028, 10047, 10077])
async def test_a_full_store_is_named_with_its_remedy_and_told_once(err_code, caplog):
    bus, changes = Bus(), []
    bus.stores.listen(lambda stream, trouble: changes.append((stream, trouble)))

    async def full(operation, subject):
        raise js_errors.ServerError(code=503, err_code=err_code)

    bus.stream.before = full
    for _ in range(3):
        with pytest.raises(KcmError, match=r"store is full.*restart nats-server") as info:
            await put(bus, "kcm.v1.eu.control.hold.tenant.00", b"x", expected=0)
        assert info.value.code is Code.UNAVAILABLE
    assert changes == [("KCM_CONTROL", Trouble.FULL)]
    assert bus.stores.troubles == {"KCM_CONTROL": Trouble.FULL}
    bus.stream.before = nothing
    await put(bus, "$KV.kcm-keys.root.acme", b"x")
    assert bus.stores.troubles
    await put(bus, "kcm.v1.eu.control.hold.tenant.00", b"x")
    assert changes[1:] == [("KCM_CONTROL", None)]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


async def test_a_broker_that_answers_and_does_not_acknowledge_is_named():
    """What a stream does whose disk was full once, until the server is started again."""
    bus, changes = Bus(), []
    bus.stores.listen(lambda stream, trouble: changes.append((stream, trouble)))

    async def silent(operation, subject):
        raise nats_errors.TimeoutError

    bus.stream.before = silent
    texts = []
    for _ in range(SILENT_AFTER + 1):
        with pytest.raises(KcmError) as info:
            await put(bus, "kcm.v1.eu.audit.core-1", b"x")
        texts.append(info.value.detail)
    assert [CAUSE[Trouble.SILENT] == text for text in texts] == [False, False, True, True]
    assert changes == [("KCM_AUDIT", Trouble.SILENT)]
    bus.stream.before = nothing
    await put(bus, "kcm.v1.eu.audit.core-1", b"x")
    assert changes[1:] == [("KCM_AUDIT", None)]


async def test_an_outage_says_nothing_about_the_disk():
    bus = Bus()
    bus.connected = False

    async def silent(operation, subject):
        raise nats_errors.TimeoutError

    bus.stream.before = silent
    for _ in range(SILENT_AFTER + 1):
        with pytest.raises(KcmError, match="cannot be reached"):
            await put(bus, "kcm.v1.eu.audit.core-1", b"x")
    assert not bus.stores.troubles


def test_no_other_refusal_is_a_conflict():
    for err_code in (None, 10003, 10023, 10047, 10059, 10077, 10110):
        assert not is_conflict(js_errors.APIError(code=400, err_code=err_code))
