"""The sealed channel, step by step, by both decoders."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from kcm_keymem.arena import Arena
from kcm_schemas.codec import decode
from kcm_schemas.vault import REPLY_HEAD, CoreReply, CoreRequest
from kcm_sealing.hpke import HpkePrivate
from kcm_sealing.session import Session, TicketInfo, open_session_as_callee, sealed_size, to_sign
from kcm_trust.identity import check

from tests.vectors import decoder, generate, packed
from tests.vectors.packed import Refused

CASE = generate.load("channel")
REQUEST = (
    "v",
    "caller",
    "incarnation",
    "ticket",
    "request_id",
    "deadline_ms",
    "purpose",
    "l3_version",
    "count",
    "sealed",
)
CLEAR = ("caller", "incarnation", "deadline_ms", "purpose", "l3_version", "count")


def value(name: str) -> bytes:
    return bytes.fromhex(CASE[name])


def info_of_the_product() -> TicketInfo:
    region, key_id, caller, session_id, issued, expiry = CASE["info_parts"]
    ids = bytes.fromhex(key_id), bytes.fromhex(session_id)
    return TicketInfo(region, ids[0], caller, ids[1], issued, expiry)


@pytest.fixture
def session() -> Any:
    private = HpkePrivate(memoryview(bytearray(value("hpke_secret"))))
    opened = open_session_as_callee(info_of_the_product(), private, value("ciphertext"), Arena())
    yield opened
    opened.close()


def clear_part(fields: dict[str, Any], subject: list[str]) -> bytes:
    """The clear part from the document's rule: a msgpack list of ten values, spelled by hand."""
    out = b"\x9a"
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
    region, key_id, caller, session_id, issued, expiry = CASE["info_parts"]
    ids = bytes.fromhex(key_id), bytes.fromhex(session_id)
    info = decoder.session_info(region, ids[0], caller, ids[1], issued, expiry)
    assert info == value("info") == info_of_the_product().encode()
    message = decoder.ticket_to_sign(info, value("ciphertext"))
    assert message == to_sign(info, value("ciphertext"))
    assert check(value("caller_public"), value("signature"), message)


def test_keys() -> None:
    keys = decoder.session_keys(value("hpke_secret"), value("ciphertext"), value("info"))
    assert keys == (value("request_key"), value("reply_key"))
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
    ids = bytes.fromhex(CASE["info_parts"][3]), fields["request_id"]
    aad = decoder.request_aad(*ids, clear)
    assert aad == value("request_aad")
    plain = decoder.xaes_open(value("request_key"), fields["sealed"], aad)
    out = memoryview(bytearray(len(plain)))
    session.open_request(fields["request_id"], clear, fields["sealed"], out)
    assert plain == out == value("request_plain")
    assert len(fields["sealed"]) == sealed_size(32 * fields["count"])


def test_reply(session: Session) -> None:
    fields = packed.read_message(value("reply"), ("v", "callee", "sealed"))
    assert decode(CoreReply, value("reply")).callee == fields["callee"] == CASE["callee"]
    aad = decoder.reply_aad(value("request"), fields["callee"])
    assert aad == value("reply_aad")
    plain = decoder.xaes_open(value("reply_key"), fields["sealed"], aad)
    out = memoryview(bytearray(len(plain)))
    session.open_reply(sha256(value("request")).digest(), CASE["callee"], fields["sealed"], out)
    assert plain == out == value("reply_plain")
    assert REPLY_HEAD.unpack(plain[:8]) == (9_500, 3)


@pytest.mark.parametrize("case", [pytest.param(c, id=c["name"]) for c in CASE["invalid"]])
def test_refused(case: dict[str, Any], session: Session) -> None:
    body, sealed = bytes.fromhex(case["request"]), bytes.fromhex(case["sealed"])
    fields = packed.read_message(body, REQUEST)
    message = decode(CoreRequest, body)
    out = memoryview(bytearray(b"\xaa" * (len(sealed) - 40)))
    if case["direction"] == "request":
        session_id = fields["ticket"]["session_id"]
        aad = decoder.request_aad(
            session_id, fields["request_id"], clear_part(fields, case["subject"])
        )
        with pytest.raises(InvalidTag):
            session.open_request(message.request_id, message.clear(*case["subject"]), sealed, out)
        key = value("request_key")
    else:
        aad = decoder.reply_aad(body, case["callee"])
        with pytest.raises(InvalidTag):
            session.open_reply(sha256(body).digest(), case["callee"], sealed, out)
        key = value("reply_key")
    assert not any(out)
    with pytest.raises(Refused) as caught:
        decoder.xaes_open(key, sealed, aad)
    assert caught.value.failure == case["failure"]
