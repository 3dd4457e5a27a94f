"""Bad input gets its code: never a traceback, never a timeout, and the service goes on."""

import msgpack
import pytest
from kcm_schemas import data_subjects, limits, subjects
from kcm_schemas.codec import encode, pack
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import DecryptRequest, EncryptReply, EncryptRequest, decode_reply

from tests.integration.living import EU, US, decrypt, encrypt, now_ms


@pytest.fixture
async def app(living):
    async with living.app() as connection:
        yield connection


@pytest.fixture(scope="module")
def tenants(living):
    import asyncio

    async def make():
        return await living.tenant(kind="softkey"), await living.tenant(kind="softkey")

    return asyncio.run(make())


async def refused(app, subject, body):
    with pytest.raises(KcmError) as info:
        decode_reply(EncryptReply, await app.request(subject, body, 6))
    return info.value.code


def request(**changes):
    fields = {
        "v": 1, "deadline_ms": now_ms() + 5000, "dek_scope": "record",
        "plaintexts": [b"x"], "contexts": [],
    }  # fmt: skip
    return fields | changes


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (lambda: b"", Code.MALFORMED),
        (lambda: b"\xc1", Code.MALFORMED),
        (lambda: b"not msgpack at all", Code.MALFORMED),
        (lambda: pack([1, 2, 3]), Code.MALFORMED),
        (lambda: pack(request(v=2)), Code.MALFORMED),
        (lambda: pack(request(extra=1)), Code.MALFORMED),
        (lambda: pack(request(plaintexts=[])), Code.MALFORMED),
        (lambda: pack(request(plaintexts=["text"])), Code.MALFORMED),
        (lambda: pack(request(dek_scope="all")), Code.MALFORMED),
        (lambda: pack(request(deadline_ms=now_ms() + 3_600_000)), Code.MALFORMED),
        (lambda: pack(request(deadline_ms=now_ms() - 1)), Code.DEADLINE_EXCEEDED),
        (lambda: pack(request(contexts=[b"a", b"b"])), Code.MALFORMED),
        (lambda: pack(request(contexts=[bytes(limits.APP_CONTEXT_MAX + 1)])), Code.MALFORMED),
        (lambda: pack(request(plaintexts=[b""] * (limits.RECORDS_MAX + 1))), Code.MALFORMED),
        (lambda: pack(request(plaintexts=[bytes(890_000)] + [b""] * 300)), Code.TOO_LARGE),
        (lambda: bytes(limits.BODY_MAX + 1), Code.TOO_LARGE),
        (lambda: msgpack.packb(request(), use_single_float=True) + b"\x00", Code.MALFORMED),
        (lambda: b"\xde\x00\x05" + pack(request())[1:], Code.MALFORMED),
        (lambda: b"\x91" * 100_000 + b"\xc0", Code.MALFORMED),
    ],
)
async def test_a_bad_message_gets_its_code(app, tenants, body, code):
    subject = data_subjects.gateway(EU, "encrypt", tenants[0], "crm")
    assert await refused(app, subject, body()) is code
    assert (await encrypt(app, tenants[0], [b"still there"])).codes == []


async def test_unknown_names(app, tenants):
    known = data_subjects.gateway(EU, "encrypt", tenants[0], "crm")
    body = pack(request())
    assert await refused(app, known.replace(tenants[0], "nobody"), body) is Code.UNKNOWN_TENANT
    assert await refused(app, known.replace("crm", "nothing"), body) is Code.UNKNOWN_SERVICE
    unserved = await refused(app, known.replace("encrypt", "explode"), body)
    assert unserved is Code.UNAVAILABLE  # no Gateway listens there
    assert await refused(app, known.replace(tenants[0], "UPPER"), body) is Code.MALFORMED


async def test_one_bad_record_spoils_nothing_else(app, tenants):
    good = (await encrypt(app, tenants[0], [b"one", b"two", b"three"])).records
    foreign = (await encrypt(app, tenants[1], [b"foreign"])).records[0]
    flipped = bytearray(good[1])
    flipped[-1] ^= 1
    key_flipped = bytearray(good[1])
    key_flipped[len(good[1]) - 60] ^= 1
    swapped = good[0][:-30] + good[1][-30:]
    offered = [
        good[0], bytes(flipped), good[1][:40], b"", foreign, bytes(key_flipped), swapped, good[2],
        b"KCM2" + good[0][4:], b"KCM1\x02" + good[0][5:], good[0] + b"\x00",
    ]  # fmt: skip
    done = await decrypt(app, tenants[0], offered)
    assert done.codes == [
        Code.OK, Code.TAMPERED, Code.MALFORMED, Code.MALFORMED, Code.FORBIDDEN, Code.TAMPERED,
        Code.TAMPERED, Code.OK, Code.MALFORMED, Code.MALFORMED, Code.TAMPERED,
    ]  # fmt: skip
    assert [value for value in done.plaintexts if value] == [b"one", b"three"]


async def test_swapped_headers(app, tenants):
    a, b = (await encrypt(app, tenants[0], [b"aaaa", b"bbbb"])).records
    size = len(a) - 4 - limits.TAG_SIZE
    done = await decrypt(app, tenants[0], [a[:size] + b[size:], b[:size] + a[size:]])
    assert done.codes == [Code.TAMPERED, Code.TAMPERED]


async def test_the_context_is_bound(app, tenants):
    sealed = (await encrypt(app, tenants[0], [b"x", b"y"], contexts=[b"row-1", b"row-2"])).records
    assert (await decrypt(app, tenants[0], sealed, contexts=[b"row-1", b"row-2"])).codes == []
    wrong = await decrypt(app, tenants[0], sealed, contexts=[b"row-2", b"row-2"])
    assert wrong.codes == [Code.TAMPERED, Code.OK]
    assert set((await decrypt(app, tenants[0], sealed)).codes) == {Code.TAMPERED}


async def test_a_key_version_that_does_not_exist(app, tenants):
    sealed = (await encrypt(app, tenants[0], [b"x"])).records[0]
    at = 5 + 3 + len(EU) + len(tenants[0]) + len("crm")
    other = sealed[:at] + (77).to_bytes(4, "big") + sealed[at + 4 :]
    done = await decrypt(app, tenants[0], [other, sealed])
    assert done.codes == [Code.KEY_DESTROYED, Code.OK]


async def test_another_region_cannot_open_it(living, app, tenants):
    sealed = (await encrypt(app, tenants[0], [b"german"])).records
    async with living.app(US) as abroad:
        done = await decrypt(abroad, tenants[0], sealed, region=US)
        assert done.codes == [Code.WRONG_REGION]
        at = 5
        forged = sealed[0][:at] + bytes((len(US),)) + US.encode() + sealed[0][at + 1 + len(EU) :]
        # Saying that it is one's own does not help: the key is bound to where it was made.
        done = await decrypt(abroad, tenants[0], [forged], region=US)
        assert done.codes == [Code.TAMPERED]


async def test_both_scopes_come_back(app, tenants):
    plain = [b"", b"a", bytes(1000), "ü".encode()]
    for scope in ("record", "batch"):
        sealed = await encrypt(app, tenants[0], plain, dek_scope=scope)
        assert sealed.codes == []
        assert (await decrypt(app, tenants[0], sealed.records)).plaintexts == plain


async def test_a_core_refuses_who_is_no_gateway(app, tenants):
    """A client that speaks to a Core itself has no ticket that anybody believes."""
    subject = data_subjects.core(EU, "core-eu-de-1", "unwrap", tenants[0], "crm")
    body = encode(DecryptRequest(v=1, deadline_ms=now_ms() + 1000, records=[b"x"], contexts=[]))
    assert await refused(app, subject, body) is Code.MALFORMED


async def test_an_admin_request_without_a_signature_is_refused(app):
    body = encode(EncryptRequest.model_validate(request()))
    assert await refused(app, subjects.admin(EU, "hold", "put"), body) is Code.FORBIDDEN
