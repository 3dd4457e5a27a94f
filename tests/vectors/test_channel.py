"""The sealed channel, step by step, by both decoders."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from kcm_keymem.arena import Arena
from kcm_schemas.asks import keys_digest, to_tag
from kcm_schemas.codec import decode
from kcm_schemas.codes import Code
from kcm_schemas.data import Failure
from kcm_schemas.session import Ticket, decode_sealed_reply
from kcm_schemas.vault import REPLY_HEAD, CoreRequest
from kcm_sealing.hpke import HpkePrivate
from kcm_sealing.session import (
    Outcome,
    Session,
    TicketInfo,
    open_session_as_callee,
    sealed_size,
    to_sign,
)
from kcm_trust.identity import check

from tests.vectors import decoder, generate, packed
from tests.vectors.packed import Refused

CASE = generate.load("channel")
REQUEST = (
    "v",
    "caller",
    "session_id",
    "counter",
    "deadline_ms",
    "purpose",
    "l3_version",
    "count",
    "sealed",
)
TICKET = (
    "v",
    "caller",
    "incarnation",
    "session_id",
    "key_id",
    "issued_ms",
    "expiry_ms",
    "ciphertext",
    "signature",
)
CLEAR = ("caller", "deadline_ms", "purpose", "l3_version", "count")


def value(name: str) -> bytes:
    return bytes.fromhex(CASE[name])


def info_parts() -> tuple[tuple[str, str, bytes], tuple[str, bytes, bytes], int, int]:
    """Of the callee: region, name, key id; of the caller: name, incarnation, session id; times."""
    region, callee, key_id, caller, incarnation, session_id, issued, expiry = CASE["info_parts"]
    ids = bytes.fromhex(incarnation), bytes.fromhex(session_id)
    return (region, callee, bytes.fromhex(key_id)), (caller, *ids), issued, expiry


def info_of_the_product() -> TicketInfo:
    callee, caller, issued, expiry = info_parts()
    return TicketInfo(*callee, *caller, issued, expiry)


@pytest.fixture
def session() -> Any:
    private = HpkePrivate(memoryview(bytearray(value("hpke_secret"))))
    opened = open_session_as_callee(info_of_the_product(), private, value("ciphertext"), Arena())
    yield opened
    opened.close()


def clear_part(fields: dict[str, Any], subject: list[str]) -> bytes:
    """The clear part from the document's rule: a msgpack list of nine values, spelled by hand."""
    out = b"\x99"
    for item in [*subject, *(fields[name] for name in CLEAR)]:
        if isinstance(item, str):
            text = item.encode()
            out += bytes((0xA0 | len(text),)) if len(text) < 32 else b"\xd9" + bytes((len(text),))
            out += text
        elif isinstance(item, bytes):
            out += b"\xc4" + bytes((len(item),)) + item
        elif item < 128:
            out += bytes((item,))
        else:
            size = next(n for n in (1, 2, 4, 8) if item < 1 << (8 * n))
            out += bytes((0xCC + (1, 2, 4, 8).index(size),)) + item.to_bytes(size, "big")
    return out


def test_ticket() -> None:
    info = decoder.session_info(*info_parts())
    assert info == value("info") == info_of_the_product().encode()
    message = decoder.ticket_to_sign(info, value("ciphertext"))
    assert message == to_sign(info, value("ciphertext"))
    assert check(value("caller_public"), value("signature"), message)
    fields = packed.read_message(value("ticket"), TICKET)
    assert fields == dict(decode(Ticket, value("ticket")))
    assert (fields["ciphertext"], fields["signature"]) == (value("ciphertext"), value("signature"))


def test_keys() -> None:
    keys = decoder.session_keys(value("hpke_secret"), value("ciphertext"), value("info"))
    assert keys == (value("request_key"), value("reply_key"), value("ask_key"))
    derived = decoder.direction_keys(value("session_secret"), value("ciphertext"), value("info"))
    assert derived == keys
    assert sha256(value("info") + value("ciphertext")).digest() == value("salt")


def test_a_ticket_opens_for_its_own_info_only() -> None:
    for at in range(len(value("info"))):
        info = bytearray(value("info"))
        info[at] ^= 1
        with pytest.raises(Refused):
            decoder.session_keys(value("hpke_secret"), value("ciphertext"), bytes(info))


def test_request(session: Session) -> None:
    fields = packed.read_message(value("request"), REQUEST)
    clear = clear_part(fields, CASE["subject"])
    assert clear == value("clear")
    assert decode(CoreRequest, value("request")).clear(*CASE["subject"]) == clear
    assert fields["session_id"] == info_of_the_product().session_id
    assert fields["counter"] == CASE["counter"]
    aad = decoder.request_aad(fields["session_id"], fields["counter"], clear)
    assert aad == value("request_aad")
    plain = decoder.xaes_open(value("request_key"), fields["sealed"], aad)
    out = memoryview(bytearray(len(plain)))
    session.open_request(fields["counter"], clear, fields["sealed"], out)
    assert plain == out == value("request_plain")
    assert len(fields["sealed"]) == sealed_size(32 * fields["count"])


@pytest.mark.parametrize(
    ("name", "field", "outcome"),
    [("reply", "sealed", "answered"), ("refusal", "refused", "refused")],
)
def test_reply(session: Session, name: str, field: str, outcome: Outcome) -> None:
    sealed = packed.read_message(value(name), ("v", field))[field]
    message = decode_sealed_reply(value(name))
    assert sealed == getattr(message, field)
    aad = decoder.reply_aad(value("request_aad"), CASE["callee"], outcome)
    assert aad == value(f"{name}_aad")
    plain = decoder.xaes_open(value("reply_key"), sealed, aad)
    out = memoryview(bytearray(len(plain)))
    digest = session.request_digest(CASE["counter"], value("clear"))
    session.open_reply(digest, sealed, out, outcome)
    assert plain == out == value(f"{name}_plain")


def test_ask(session: Session) -> None:
    session_id, *about = CASE["ask_parts"]
    parts = (bytes.fromhex(session_id), *about)
    assert to_tag(*parts, keys_digest(value("ask_wrapped"))) == value("ask_message")
    tag = decoder.ask_tag(value("ask_key"), parts, value("ask_wrapped"))
    assert tag == value("ask_tag")
    assert session.has_tagged(value("ask_message"), tag)
    assert not session.has_tagged(value("ask_message"), bytes((tag[0] ^ 1,)) + tag[1:])


def test_what_a_reply_says() -> None:
    assert REPLY_HEAD.unpack(value("reply_plain")[:8]) == (9_500, 3)
    assert decode(Failure, value("refusal_plain")).error is Code.TENANT_KILLED


@pytest.mark.parametrize("case", [pytest.param(c, id=c["name"]) for c in CASE["invalid"]])
def test_refused(case: dict[str, Any], session: Session) -> None:
    body, sealed = bytes.fromhex(case["request"]), bytes.fromhex(case["sealed"])
    fields = packed.read_message(body, REQUEST)
    message = decode(CoreRequest, body)
    out = memoryview(bytearray(b"\xaa" * (len(sealed) - 40)))
    if case["direction"] == "request":
        aad = decoder.request_aad(
            fields["session_id"], fields["counter"], clear_part(fields, case["subject"])
        )
        with pytest.raises(InvalidTag):
            session.open_request(message.counter, message.clear(*case["subject"]), sealed, out)
        key = value("request_key")
    else:
        clear = clear_part(fields, case["subject"])
        of_request = decoder.request_aad(fields["session_id"], fields["counter"], clear)
        aad = decoder.reply_aad(of_request, case["callee"], "answered")
        with pytest.raises(InvalidTag):
            session.open_reply(sha256(of_request).digest(), sealed, out)
        key = value("reply_key")
    assert not any(out)
    with pytest.raises(Refused) as caught:
        decoder.xaes_open(key, sealed, aad)
    assert caught.value.failure == case["failure"]
