"""msgpack with one encoding per message.

A message is a map from field names to values, in the order of the model's fields, encoded the way
``msgpack.packb`` does it: smallest integers, smallest lengths, ``bin`` for bytes. ``decode``
re-encodes what it read and compares, so a message that says the same in other bytes is refused:
what is signed or hashed has one form only.

What decoding costs is bounded by the size of the message and by what its kind may hold, whoever
sent it: a list is refused at its head when it declares more than there can be, and before room is
made for what is declared, all of it has to be there (the library makes room for 8192 items at every
level of a nest that says so, which a message of 3 KB can do a thousand times).

msgpack ships no types; this module is the one typed wrapper.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final, TypeVar, cast, get_args, get_origin

import msgpack
from pydantic import BaseModel, ConfigDict, ValidationError

from kcm_schemas import limits
from kcm_schemas.codes import Code, KcmError


class Message(BaseModel):
    """What every message is: frozen, strict, without unknown fields, silent about its input."""

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
"""Types that are encoded as they are; asked first, for it is what nearly every field is."""


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
    """Decode one message, raising ``too_large`` or ``malformed`` and nothing else."""
    value = unpack(body, limit=limit, containers=containers_max(model))
    return decode_unpacked(model, value, body, limit=limit)


def decode_unpacked(model: type[M], value: Any, body: bytes, *, limit: int = limits.BODY_MAX) -> M:
    """``decode`` of a body that was unpacked to ``value`` already."""
    message = validate(model, value)
    if encode(message, limit=limit) != body:
        raise KcmError(Code.MALFORMED, "the message is not in its canonical encoding")
    return message


def unpack(
    body: bytes, *, limit: int = limits.BODY_MAX, containers: int = limits.CONTAINERS_MAX
) -> Any:
    """Decode msgpack to plain values: at most so many lists and maps, none in a list of lists."""
    if len(body) > limit:
        raise KcmError(Code.TOO_LARGE)
    budget = _Budget(containers)
    try:
        if body.count(b"\xdc") + body.count(b"\xdd") > _HEADS_FREE:
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
    # Raised out here, so that the library's exception, which carries input, is no context of ours.
    raise KcmError(Code.MALFORMED, "the message is not msgpack, or not of this shape")


_HEADS_FREE: Final = 8
"""Bytes that may be heads of long lists in a message that is decoded without a look at whether it
is complete: each makes room for ``ITEMS_MAX`` items, 64 KiB, at most."""


def _complete(body: bytes) -> None:
    """Walk over the message, making nothing; raises when it ends before what it declares.

    In a complete message the items that are declared are there, so there are fewer than bytes.
    """
    walker = msgpack.Unpacker(max_buffer_size=len(body))
    walker.feed(body)
    walker.skip()
    if walker.tell() != len(body):
        raise ValueError("more than one message")


class _Budget:
    """Lists and maps that one message may still have."""

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
    """How many lists and maps a message of this kind has at most, itself included."""
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
    """Make a message of plain values, raising ``malformed`` with the names of bad fields."""
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
