"""What is done with bytes before anybody's signature was checked: little, whatever they claim."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kcm_schemas import limits
from kcm_schemas.codec import Message, containers_max, decode, encode, pack, unpack
from kcm_schemas.codes import KcmError
from kcm_schemas.control import PullReply
from kcm_schemas.data import EncryptRequest
from kcm_schemas.signed import STATEMENT_MAX, Kind, Signature, Signed, read_signed
from kcm_trust.verify import Untrusted

from tests.property.messages import message, models, other_forms
from tests.unit.trust_table import BELIEVED, Row, believed, ids

MODELS = models()
BOMB = (b"\xdc" + limits.ITEMS_MAX.to_bytes(2, "big")) * 1000
"""Three kilobytes that say a thousand times, one within the other, that 8192 items follow."""


def peak_of(body: bytes, model: type[Message]) -> int:
    """Bytes of memory that refusing takes at its most."""
    tracemalloc.start()
    try:
        with pytest.raises(KcmError):
            decode(model, body)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
@pytest.mark.parametrize(
    "body",
    [
        BOMB,
        b"\x84\xa6system" + BOMB,
        b"\x85\xa1v" + BOMB,
        (b"\xdd" + limits.ITEMS_MAX.to_bytes(4, "big")) * 1000,
        (b"\x81\xa1a" + b"\xdc\x20\x00") * 1000,
        (b"\xdc\x20\x00" + b"\xc0") * 1000,
    ],
    ids=["lists", "in an envelope", "in a request", "32 bits", "maps between", "items between"],
)
def test_a_nest_of_declared_lists_makes_no_room(model: type[Message], body: bytes) -> None:
    assert peak_of(body, model) < 1024 * 1024


def test_many_small_lists_are_refused_at_the_first_too_many() -> None:
    """Complete, and within every bound of a single list; 900 KB of them took 40 ms and 50 MB."""
    body = b"\x93" + (b"\xdc\x20\x00" + b"\x90" * limits.ITEMS_MAX) * 3
    assert peak_of(body, EncryptRequest) < 1024 * 1024
    maps = b"\x81\xa1v" + b"\xdc\x20\x00" + b"\x81\xa1a\xc0" * limits.ITEMS_MAX
    assert peak_of(maps, EncryptRequest) < 1024 * 1024


def test_a_list_of_lists_is_in_no_message() -> None:
    with pytest.raises(KcmError, match="shape"):
        unpack(pack([[1]]))


def test_every_kind_has_room_for_what_it_may_hold() -> None:
    assert containers_max(EncryptRequest) == 3
    assert containers_max(PullReply) == 1 + 1 + 1 + 4096
    assert all(1 <= containers_max(model) <= limits.CONTAINERS_MAX for model in MODELS)


@given(data=st.data())
def test_an_envelope_is_read_as_by_the_codec(data: st.DataObject) -> None:
    made = data.draw(message(Signed))
    raw = encode(made)
    assert read_signed(raw) == decode(Signed, raw) == made
    for cut in (raw[:-1], raw + b"\x00", raw[1:]):
        with pytest.raises(KcmError):
            read_signed(cut)
    for other in other_forms(unpack(raw)):
        with pytest.raises(KcmError):
            read_signed(other)


@given(data=st.data())
def test_a_flipped_bit_is_the_same_for_both(data: st.DataObject) -> None:
    raw = bytearray(encode(data.draw(message(Signed))))
    at = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[at // 8] ^= 1 << at % 8
    assert outcome(read_signed, bytes(raw)) == outcome(lambda b: decode(Signed, b), bytes(raw))


def outcome(read: Any, raw: bytes) -> Signed | None:
    try:
        found: Signed = read(raw)
    except KcmError:
        return None
    return found


@pytest.mark.parametrize("row", BELIEVED, ids=ids)
def test_no_body_is_read_before_its_signature(row: Row) -> None:
    good = believed(row)
    forged = Signed(**(dict(good) | {"body": BOMB}))
    with pytest.raises(Untrusted, match="is not valid"):
        row.verify(encode(forged))


@pytest.mark.parametrize("row", BELIEVED, ids=ids)
def test_a_statement_is_as_large_as_its_kind_may_be(row: Row) -> None:
    forged = Signed(**(dict(believed(row)) | {"body": bytes(STATEMENT_MAX[row.kind])}))
    with pytest.raises(Untrusted, match=r"larger|not a signed statement"):
        row.verify(encode(forged, limit=2 * limits.BODY_MAX))


def test_more_signatures_than_eight_are_refused() -> None:
    one = b"s" * 64
    many = [{"signer": f"core-{n}", "signature": one} for n in range(9)]
    for count, good in ((8, True), (9, False), (0, False)):
        raw = pack({"system": "s", "kind": "hold", "body": b"", "signatures": many[:count]})
        assert (outcome(read_signed, raw) is not None) is good


def test_signatures_stand_in_order_and_once() -> None:
    def raw(*names: str) -> bytes:
        signatures = [{"signer": name, "signature": b"s" * 64} for name in names]
        return pack({"system": "s", "kind": "hold", "body": b"", "signatures": signatures})

    assert read_signed(raw("a", "b")).signatures[0] == Signature(signer="a", signature=b"s" * 64)
    for wrong in (raw("b", "a"), raw("a", "a")):
        assert outcome(read_signed, wrong) is None
    assert set(STATEMENT_MAX) == set(Kind)
