"""Records: whatever parses builds again to the same bytes, and every bit of one counts."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kcm_schemas import limits, record
from kcm_schemas.codes import Code, KcmError

from tests.vectors import decoder, product
from tests.vectors.families.records import HOME, KEYS, make
from tests.vectors.packed import Refused

names = st.from_regex(r"[a-z0-9-]{1,63}", fullmatch=True)
versions = st.integers(1, (1 << 32) - 1)
indices = st.integers(0, (1 << 32) - 1)
wrapped = st.binary(min_size=72, max_size=72)
bodies = st.binary(min_size=16, max_size=64)

GOOD = make(b"hello", b"row 17")
HEAD = len(GOOD) - len(b"hello") - limits.TAG_SIZE


def refused(raw: bytes) -> None:
    with pytest.raises(KcmError) as caught:
        record.parse(raw)
    assert caught.value.code is Code.MALFORMED


@given(names, names, names, versions, wrapped, indices, bodies)
def test_what_is_built_parses(
    region: str, tenant: str, service: str, version: int, key: bytes, index: int, body: bytes
) -> None:
    built = record.build(record.prefix(region, tenant, service, version), key, index)
    header = record.parse(built + body)
    assert header == record.Header(
        region=region,
        tenant=tenant,
        service=service,
        l3_version=version,
        wrapped=key,
        index=index,
        raw=built,
    )
    assert len(built) + limits.TAG_SIZE <= record.OVERHEAD_MAX
    second = decoder.parse_record(built + body)
    assert (second.header, second.sealed) == (built, body)


def rebuilt(header: record.Header) -> bytes:
    start = record.prefix(header.region, header.tenant, header.service, header.l3_version)
    return record.build(start, header.wrapped, header.index)


@st.composite
def nearly(draw: st.DrawFn) -> bytes:
    """A record with a few bytes changed, cut out or put in."""
    raw = bytearray(make(b"", b"") if draw(st.booleans()) else GOOD)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(raw)))
        until = at + draw(st.integers(0, 3))
        raw[at:until] = draw(st.binary(max_size=3))
    return bytes(raw)


@given(
    st.one_of(nearly(), st.binary(max_size=200), st.binary(max_size=200).map(b"KCM1\x01".__add__))
)
def test_whatever_parses_builds_again_to_the_same_bytes(raw: bytes) -> None:
    try:
        header = record.parse(raw)
    except KcmError as error:
        assert error.code is Code.MALFORMED
        with pytest.raises(Refused):
            decoder.parse_record(raw)
        return
    assert raw.startswith(header.raw)
    assert rebuilt(header) == header.raw
    assert decoder.parse_record(raw).header == header.raw


def test_every_truncation_is_refused() -> None:
    keys = KEYS, (b"row 17",)
    for size in range(len(GOOD)):
        with pytest.raises(Refused) as caught:
            product.open_record(GOOD[:size], keys[1][0], HOME, keys[0])
        expected = "malformed" if size < HEAD + limits.TAG_SIZE else "tampered"
        assert caught.value.failure == expected


def expected_failures(bit: int) -> set[str]:
    """Where a flipped bit lies decides what is told."""
    at = bit // 8
    region, tenant, service = (len(name) for name in HOME)
    tenant_at = 6 + region
    service_at = tenant_at + 1 + tenant
    version_at = service_at + 1 + service
    if at < 5:
        return {"malformed"}
    if at < tenant_at:
        return {"malformed", "wrong_region"}
    if at < version_at:
        return {"malformed", "forbidden"}
    if at < version_at + 4:
        return {"malformed", "key_destroyed", "tampered"}
    return {"tampered"}


def test_every_bit_counts() -> None:
    for bit in range(8 * len(GOOD)):
        broken = bytearray(GOOD)
        broken[bit // 8] ^= 1 << bit % 8
        told = set()
        for open_record in (product.open_record, decoder.open_record):
            with pytest.raises(Refused) as caught:
                open_record(bytes(broken), b"row 17", HOME, KEYS)
            told.add(caught.value.failure)
        assert len(told) == 1
        assert told <= expected_failures(bit)


@given(st.binary(max_size=100), st.binary(max_size=100), st.binary(max_size=100))
def test_a_record_opens_in_its_context_only(plain: bytes, bound: bytes, other: bytes) -> None:
    raw = make(plain, bound)
    for open_record in (product.open_record, decoder.open_record):
        assert open_record(raw, bound, HOME, KEYS) == plain
        if other != bound:
            with pytest.raises(Refused) as caught:
                open_record(raw, other, HOME, KEYS)
            assert caught.value.failure == "tampered"


@pytest.mark.parametrize("name", ["", "a" * 64, "A", "a.b", "*", ">", "a b", "ä", "a\n", "a\x00"])
def test_nothing_but_a_name_is_built(name: str) -> None:
    for where in ((name, "a", "a"), ("a", name, "a"), ("a", "a", name)):
        with pytest.raises(ValueError, match="name"):
            record.prefix(*where, 1)


@pytest.mark.parametrize("size", [0, 71, 73])
def test_nothing_but_a_wrapped_key_is_built_in(size: int) -> None:
    with pytest.raises(ValueError, match="72"):
        record.build(record.prefix("a", "a", "a", 1), os.urandom(size), 0)


def test_version_0_is_nobodys() -> None:
    with pytest.raises(ValueError, match="begin at 1"):
        record.prefix("a", "a", "a", 0)
    start = record.prefix("a", "a", "a", 1)[:-4] + bytes(4)
    refused(record.build(start, bytes(72), 0) + bytes(16))


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "not a record"),
        (b"KCM2" + GOOD[4:], "later record format"),
        (b"KCMx" + GOOD[4:], "not a record"),
        (b"KCM1\x02" + GOOD[5:], "suite"),
        (GOOD[:HEAD], "truncated"),
    ],
)
def test_the_text_says_why(raw: bytes, text: str) -> None:
    with pytest.raises(KcmError, match=text):
        record.parse(raw)
