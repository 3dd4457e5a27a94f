"""Contexts: every part has its type and its range, and nothing is truncated."""

from __future__ import annotations

from typing import Any

import pytest
from kcm_schemas import labels as context
from kcm_schemas import limits
from kcm_schemas.labels import Label, Part, ctx, record_aad

EVERY = Label("kcm/v1/test", (Part.TEXT, Part.BYTES, Part.U32, Part.U64))
GOOD: tuple[Any, ...] = ("text", b"bytes", 1, 2)


def test_an_encoding_spelled_out() -> None:
    assert ctx(EVERY, *GOOD) == (
        b"\x00\x0bkcm/v1/test"
        b"\x00\x04text"
        b"\x00\x05bytes"
        b"\x00\x04\x00\x00\x00\x01"
        b"\x00\x08\x00\x00\x00\x00\x00\x00\x00\x02"
    )


@pytest.mark.parametrize(
    ("at", "wrong"),
    [
        (0, b"text"),
        (0, 1),
        (0, None),
        (1, "bytes"),
        (1, bytearray(b"bytes")),
        (1, memoryview(b"bytes")),
        (2, -1),
        (2, 1 << 32),
        (2, True),
        (2, 1.0),
        (2, "1"),
        (2, b"\x00\x00\x00\x01"),
        (3, -1),
        (3, 1 << 64),
        (3, False),
        (0, "a" * 0x10000),
        (0, "ä" * 0x8000),
        (1, bytes(0x10000)),
    ],
)
def test_another_type_or_range_is_an_error(at: int, wrong: Any) -> None:
    parts = list(GOOD)
    parts[at] = wrong
    with pytest.raises(ValueError, match=r"kcm/v1/test|a part of a context"):
        ctx(EVERY, *parts)


@pytest.mark.parametrize("count", [0, 3, 5])
def test_another_number_of_parts_is_an_error(count: int) -> None:
    with pytest.raises(ValueError, match="binds 4 parts"):
        ctx(EVERY, *(GOOD + GOOD)[:count])


def test_the_longest_part_fits() -> None:
    assert len(ctx(context.RECORD, bytes(0xFFFF), b"")) == 2 + 13 + 2 + 0xFFFF + 2


def test_a_bound_moved_between_parts_shows() -> None:
    assert ctx(context.RECORD, b"ab", b"c") != ctx(context.RECORD, b"a", b"bc")


def test_labels_are_different() -> None:
    labels = [value for value in vars(context).values() if isinstance(value, Label)]
    assert len({label.name for label in labels}) == len(labels) > 10
    assert all(label.name.startswith("kcm/v1/") for label in labels)


@pytest.mark.parametrize("size", [0, 1, limits.APP_CONTEXT_MAX])
def test_the_quick_form_is_the_same(size: int) -> None:
    header, bound = b"header", bytes(size)
    assert record_aad(header, bound) == ctx(context.RECORD, header, bound)


def test_a_request_fits_one_batch_of_wraps() -> None:
    from kcm_sealing import xaes

    assert limits.KEYS_MAX <= xaes.BATCH_MAX
