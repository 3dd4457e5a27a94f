"""One message, one encoding: the same value in any other form is refused."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kcm_schemas import limits
from kcm_schemas.codec import Message, decode, encode, pack, unpack, validate
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import DecryptRequest, EncryptReply, EncryptRequest, Failure, decode_reply
from kcm_schemas.signed import Signed

from tests.property.messages import message, models, other_forms

MODELS = models()
named = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
GOOD = DecryptRequest(v=1, deadline_ms=5, records=[b"a"], contexts=[])


def refused(model: type[Message], body: bytes, code: Code = Code.MALFORMED) -> KcmError:
    with pytest.raises(KcmError) as caught:
        decode(model, body)
    assert caught.value.code is code
    return caught.value


def test_there_are_messages() -> None:
    assert len(MODELS) > 30


@named
@settings(max_examples=5)
@given(data=st.data())
def test_every_message_round_trips(model: type[Message], data: st.DataObject) -> None:
    made = data.draw(message(model))
    body = encode(made)
    again = decode(model, body)
    assert again == made
    assert encode(again) == body


@named
@settings(max_examples=3)
@given(data=st.data())
def test_no_other_form_decodes(model: type[Message], data: st.DataObject) -> None:
    body = encode(data.draw(message(model)))
    tried = 0
    for other in other_forms(unpack(body)):
        assert other != body
        refused(model, other)
        tried += 1
    assert tried > 1


@named
@settings(max_examples=5)
@given(data=st.data())
def test_no_truncation_and_no_tail_decodes(model: type[Message], data: st.DataObject) -> None:
    body = encode(data.draw(message(model)))
    cut = data.draw(st.integers(0, len(body) - 1))
    refused(model, body[:cut])
    refused(model, body + data.draw(st.binary(min_size=1, max_size=4)))


@named
@settings(max_examples=5)
@given(data=st.data())
def test_no_field_is_nil_missing_or_more(model: type[Message], data: st.DataObject) -> None:
    plain = unpack(encode(data.draw(message(model))))
    refused(model, pack(plain | {"another": 1}))
    for name, field in model.model_fields.items():
        refused(model, pack({key: value for key, value in plain.items() if key != name}))
        if type(None) not in getattr(field.annotation, "__args__", ()):
            refused(model, pack(plain | {name: None}))
        refused(model, pack(plain | {name: {"a": 1}}))
        refused(model, pack(plain | {name: 1.5}))


@pytest.mark.parametrize("model", [DecryptRequest, EncryptRequest, Signed])
@given(body=st.binary(max_size=200))
def test_random_bytes_raise_nothing_else(model: type[Message], body: bytes) -> None:
    refused(model, body)


@given(data=st.data())
def test_a_flipped_bit_is_refused_or_another_message(data: st.DataObject) -> None:
    body = encode(data.draw(message(Signed)))
    at = data.draw(st.integers(0, 8 * len(body) - 1))
    broken = bytearray(body)
    broken[at // 8] ^= 1 << at % 8
    try:
        other = decode(Signed, bytes(broken))
    except KcmError as error:
        assert error.code is Code.MALFORMED
    else:
        assert encode(other) == broken


@pytest.mark.parametrize(
    "body",
    [
        b"\x91" * 900_000,
        b"\x81\xa1a" * 300_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x05",
        (b"\xdd" + (800_000).to_bytes(4, "big")) * 500 + b"\xc0" * 800_000,
        (b"\xdd" + limits.ITEMS_MAX.to_bytes(4, "big")) * 500 + b"\xc0" * 800_000,
        b"\xdc\x20\x00" + b"\x90" * limits.ITEMS_MAX,
    ],
    ids=lambda body: f"{body[:8].hex()} {len(body)}",
)
def test_depth_and_declared_lengths_are_bounded(body: bytes) -> None:
    tracemalloc.start()
    try:
        for model in (DecryptRequest, Signed):
            refused(model, body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * limits.BODY_MAX


@pytest.mark.parametrize("depth", [1, 100, 1000])
def test_depth_within_a_field_is_refused(depth: int) -> None:
    nested: Any = b"\x91" * depth + b"\xc0"
    body = encode(GOOD).replace(b"\x91\xc4\x01a", nested)
    assert len(body) > len(nested)
    refused(DecryptRequest, body)


def test_too_large() -> None:
    large = DecryptRequest(v=1, deadline_ms=5, records=[bytes(limits.BODY_MAX)], contexts=[])
    with pytest.raises(KcmError) as caught:
        encode(large)
    assert caught.value.code is Code.TOO_LARGE
    refused(DecryptRequest, bytes(limits.BODY_MAX + 1), Code.TOO_LARGE)


def test_as_large_as_allowed() -> None:
    head = len(encode(GOOD)) - len(b"\xc4\x01a") + len(b"\xc6\x00\x00\x00\x00")
    record = b"a" * (limits.BODY_MAX - head)
    body = encode(DecryptRequest(v=1, deadline_ms=5, records=[record], contexts=[]))
    assert len(body) == limits.BODY_MAX
    assert encode(decode(DecryptRequest, body)) == body


@pytest.mark.parametrize(
    "body",
    [
        b"\xa9plaintext" + b"a secret",
        msgpack.packb({"v": 1, "secret": "a secret", "a secret": 1}),
        msgpack.packb({"v": "a secret", "deadline_ms": "a secret", "records": ["a secret"]}),
        b"\x81\xc4\x08a secret\x01",
        b"\xa8a secre\xff",
    ],
)
def test_an_error_carries_no_input(body: bytes) -> None:
    error = refused(DecryptRequest, body)
    seen: set[int] = set()
    following: list[BaseException | None] = [error]
    while following:
        current = following.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        following += [current.__cause__, current.__context__]
        assert "secret" not in f"{current!r} {current} {current.args} {vars(current)}"


def test_a_failure_is_raised_as_itself() -> None:
    body = encode(Failure(v=1, error=Code.TENANT_KILLED, detail="gone"))
    with pytest.raises(KcmError) as caught:
        decode_reply(EncryptReply, body)
    assert (caught.value.code, caught.value.detail) == (Code.TENANT_KILLED, "gone")


def test_a_failure_has_one_encoding_too() -> None:
    body = encode(Failure(v=1, error=Code.TENANT_KILLED, detail="gone"))
    for other in other_forms(unpack(body)):
        with pytest.raises(KcmError) as caught:
            decode_reply(EncryptReply, other)
        assert caught.value.code is Code.MALFORMED


def test_a_reply_is_decoded() -> None:
    reply = EncryptReply(v=1, lease_ms=1, records=[b"r"], codes=[Code.OK])
    assert decode_reply(EncryptReply, encode(reply)) == reply


@pytest.mark.parametrize("value", [None, 1, "text", [], {}, {"v": 1}, {1: 2}])
def test_validate_raises_nothing_else(value: Any) -> None:
    with pytest.raises(KcmError):
        validate(DecryptRequest, value)
