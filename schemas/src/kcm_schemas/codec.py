"""msgpack with one encoding per message.

A message is a map from field names to values, in the order of the model's fields, encoded as
``msgpack.packb`` encodes it: smallest integers, smallest lengths, ``bin`` for bytes. ``decode``
re-encodes its result and compares, so a message with the same content in other bytes is rejected:
signed and hashed content has exactly one form.

The cost of decoding is bounded by the size of the message and by what its kind may contain,
from every sender. A list that declares too many items is rejected at its head. Before the library
allocates room for declared items, all of them must be present: it allocates room for 8192 items at
every level of nested lists that declare them, which a message of 3 KB can do a thousand times.

msgpack ships no types; this module is the one typed wrapper.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any, Final, TypeVar, cast, get_args, get_origin

import msgpack
from pydantic import BaseModel, ConfigDict, ValidationError

from kcm_schemas import limits
from kcm_schemas.codes import Code, KcmError


class Message(BaseModel):
    """Base of every message: frozen, strict, without unknown fields, no input in its errors."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", hide_input_in_errors=True, ser_json_bytes="hex"
    )


M = TypeVar("M", bound=Message)


def pack(value: Any) -> bytes:
    """Encode plain values canonically."""
    return cast("bytes", msgpack.packb(value, use_bin_type=True))


def encode(message: Message, *, limit: int = limits.BODY_MAX) -> bytes:
    """Encode a message; raises ``too_large`` above ``limit`` bytes."""
    body = pack(_plain(message))
    if len(body) > limit:
        raise KcmError(Code.TOO_LARGE)
    return body


_PLAIN: Final = frozenset({bytes, str, int, bool, type(None)})
"""Types that are encoded as they are; tested first, because nearly every field has one."""


def _plain(message: Message) -> dict[str, Any]:
    # model_dump would copy every column item by item; the values are already plain.
    return {
        name: value if type(value) in _PLAIN else _value(value)
        for name, value in message.__dict__.items()
    }


def _value(value: Any) -> Any:
    if isinstance(value, Message):
        return _plain(value)
    if isinstance(value, list | tuple) and value and isinstance(value[0], Message):
        return [_plain(item) for item in value]
    return value


def decode(model: type[M], body: bytes, *, limit: int = limits.BODY_MAX) -> M:
    """Decode one message; raises only ``too_large`` or ``malformed``."""
    value = unpack(body, limit=limit, containers=containers_max(model))
    return decode_unpacked(model, value, body, limit=limit)


def decode_unpacked(model: type[M], value: Any, body: bytes, *, limit: int = limits.BODY_MAX) -> M:
    """Decode a body that is already unpacked to ``value``; raises as ``decode`` does."""
    message = validate(model, value)
    if encode(message, limit=limit) != body:
        raise KcmError(Code.MALFORMED, "the message is not in its canonical encoding")
    return message


def unpack(
    body: bytes, *, limit: int = limits.BODY_MAX, containers: int = limits.CONTAINERS_MAX
) -> Any:
    """Decode msgpack to plain values; raises ``too_large`` or ``malformed``.

    ``containers`` bounds the number of lists and maps. A list of lists is malformed.
    """
    if len(body) > limit:
        raise KcmError(Code.TOO_LARGE)
    budget = _Budget(containers)
    try:
        if len(body) > _UNCHECKED_MAX:
            _complete(body)
        return msgpack.unpackb(
            body,
            raw=False,
            use_list=True,
            strict_map_key=True,
            list_hook=budget.list,
            object_hook=budget.map,
            max_array_len=limits.ITEMS_MAX,
            max_map_len=limits.FIELDS_MAX,
        )
    except Exception:  # noqa: BLE001, S110 - msgpack raises many classes, some of them bare
        pass
    # Raised outside the handler, so that the library's exception, which carries input, is not its
    # context.
    raise KcmError(Code.MALFORMED, "the message is not msgpack, or not of this shape")


START: Final = 128
"""Bytes of a message that ``start_of`` reads: enough for a caller, a session and a counter."""

_LISTS: Final = frozenset({*range(0x90, 0xA0), 0xDC, 0xDD})
"""First bytes of an encoded list."""


def start_of(body: bytes) -> dict[str, Any]:
    """Return the first fields of an encoded message, up to a list, of which it has the length.

    They are read from ``START`` bytes, and not checked: they may only decide on an order.
    """
    found: dict[str, Any] = {}
    head = body[:START]
    unpacker = msgpack.Unpacker(
        raw=False, max_array_len=limits.RECORDS_MAX, max_map_len=limits.FIELDS_MAX
    )
    with suppress(Exception):  # msgpack raises many classes; the head may end anywhere
        unpacker.feed(head)
        for _ in range(unpacker.read_map_header()):
            name = unpacker.unpack()
            if head[unpacker.tell()] in _LISTS:
                found[name] = unpacker.read_array_header()
                break
            found[name] = unpacker.unpack()
    return found


_UNCHECKED_MAX: Final = 24
"""Bytes of a message that is not checked for completeness. Each head of a long list has three, and
makes the library allocate ``ITEMS_MAX`` items, 64 KiB, at most."""


def _complete(body: bytes) -> None:
    """Walk over the message without allocating; raises if it ends before its declared items.

    A complete message contains its declared items, so it declares fewer items than it has bytes.
    """
    walker = msgpack.Unpacker(max_buffer_size=len(body))
    walker.feed(body)
    walker.skip()
    if walker.tell() != len(body):
        raise ValueError("more than one message")


class _Budget:
    """How many lists and maps one message may still have."""

    __slots__ = ("_left",)

    def __init__(self, containers: int) -> None:
        self._left = containers

    def list(self, value: list[Any]) -> list[Any]:
        self._spend()
        if value and type(value[0]) is list:
            raise ValueError("no message has lists of lists")
        return value

    def map(self, value: dict[str, Any]) -> dict[str, Any]:
        self._spend()
        return value

    def _spend(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise ValueError("more lists and maps than the message can have")


@cache
def containers_max(model: type[Message]) -> int:
    """Return how many lists and maps a message of this kind has at most, itself included."""
    inner = (_containers(field.annotation, field.metadata) for field in model.model_fields.values())
    return min(1 + sum(inner), limits.CONTAINERS_MAX)


def _containers(annotation: Any, metadata: list[Any]) -> int:
    if isinstance(annotation, type) and issubclass(annotation, Message):
        return containers_max(annotation)
    if get_origin(annotation) is list:
        (item,) = get_args(annotation)
        most = min((m.max_length for m in metadata if hasattr(m, "max_length")), default=None)
        return 1 + _containers(item, []) * (limits.ITEMS_MAX if most is None else most)
    return max((_containers(one, []) for one in get_args(annotation)), default=0)


def validate(model: type[M], value: Any) -> M:
    """Make a message from plain values; raises ``malformed`` with the names of bad fields."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        places = {
            ".".join(str(step) for step in item["loc"] if isinstance(step, str))
            for item in error.errors(include_input=False, include_context=False, include_url=False)
            if item["type"] != "extra_forbidden"
        }
        fields = ", ".join(sorted(place for place in places if place in model.model_fields))
        detail = f"fields: {fields}" if fields else "unknown, missing or misplaced fields"
    raise KcmError(Code.MALFORMED, detail)
