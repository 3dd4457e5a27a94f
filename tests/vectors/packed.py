"""msgpack with one encoding for each value: the second decoder's own reader.

Shares nothing with the product's codec, which reads with a library and compares by encoding again;
this one knows the shortest form of everything and refuses the others while it reads.
"""

from __future__ import annotations

from typing import Any


class Refused(Exception):
    """What is not believed, with the class of its failure."""

    def __init__(self, failure: str) -> None:
        self.failure = failure
        super().__init__(failure)


_WIDE = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}
_UINT = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_FIRST = {0xC4: 0, 0xD9: 32, 0xDC: 16, 0xDE: 16}
"""The least length of the shortest form that has a length field; wider forms have the least that
the narrower one cannot say."""


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        part = self.data[self.at : self.at + size]
        if len(part) != size:
            raise Refused("malformed")
        self.at += size
        return part

    def value(self, depth: int = 0) -> Any:  # noqa: PLR0911, PLR0912 - msgpack's table of first bytes
        if depth > 8:
            raise Refused("malformed")
        tag = self.take(1)[0]
        match tag:
            case _ if tag < 0x80:
                return tag
            case _ if tag < 0x90:
                return self.map(tag & 0x0F, depth)
            case _ if tag < 0xA0:
                return [self.value(depth + 1) for _ in range(tag & 0x0F)]
            case _ if tag < 0xC0:
                return self.text(tag & 0x1F)
            case 0xC0:
                return None
            case 0xC2 | 0xC3:
                return tag == 0xC3
            case 0xCC | 0xCD | 0xCE | 0xCF:
                return self.uint(tag)
            case 0xC4 | 0xC5 | 0xC6:
                return self.take(self.length(tag, 0xC4))
            case 0xD9 | 0xDA | 0xDB:
                return self.text(self.length(tag, 0xD9))
            case 0xDC | 0xDD:
                return [self.value(depth + 1) for _ in range(self.length(tag, 0xDC))]
            case 0xDE | 0xDF:
                return self.map(self.length(tag, 0xDE), depth)
            case _:
                raise Refused("malformed")

    def uint(self, tag: int) -> int:
        size = _UINT[tag]
        value = int.from_bytes(self.take(size), "big")
        if value < (128 if size == 1 else 1 << (4 * size)):
            raise Refused("malformed")
        return value

    def length(self, tag: int, first: int) -> int:
        size = _WIDE[tag]
        value = int.from_bytes(self.take(size), "big")
        least = _FIRST[first] if tag == first else 1 << (8 * _WIDE[tag - 1])
        if value < least or value > len(self.data):
            raise Refused("malformed")
        return value

    def text(self, size: int) -> str:
        try:
            return self.take(size).decode("utf-8")
        except UnicodeDecodeError:
            raise Refused("malformed") from None

    def map(self, size: int, depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for _ in range(size):
            key = self.value(depth + 1)
            if not isinstance(key, str) or key in out:
                raise Refused("malformed")
            out[key] = self.value(depth + 1)
        return out


def read_message(body: bytes, fields: tuple[str, ...]) -> dict[str, Any]:
    """Read one message: a map of exactly these fields in this order, nothing after it."""
    reader = _Reader(body)
    value = reader.value()
    if not isinstance(value, dict) or tuple(value) != fields or reader.at != len(body):
        raise Refused("malformed")
    return value
