"""msgpack with one encoding per message.

A message is a map from field names to values, in the order of the model's fields, encoded the way
``msgpack.packb`` does it: smallest integers, smallest lengths, ``bin`` for bytes. ``decode``
re-encodes what it read and compares, so a message that says the same in other bytes is refused:
what is signed or hashed has one form only.

msgpack ships no types; this module is the one typed wrapper.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar, cast

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
    return decode_unpacked(model, unpack(body, limit=limit), body, limit=limit)


def decode_unpacked(model: type[M], value: Any, body: bytes, *, limit: int = limits.BODY_MAX) -> M:
    """``decode`` of a body that was unpacked to ``value`` already."""
    message = validate(model, value)
    if encode(message, limit=limit) != body:
        raise KcmError(Code.MALFORMED, "the message is not in its canonical encoding")
    return message


def unpack(body: bytes, *, limit: int = limits.BODY_MAX) -> Any:
    """Decode msgpack to plain values, bounded by the size of ``body``."""
    if len(body) > limit:
        raise KcmError(Code.TOO_LARGE)
    try:
        return msgpack.unpackb(
            body,
            raw=False,
            use_list=True,
            strict_map_key=True,
            max_array_len=limits.ITEMS_MAX,
            max_map_len=limits.FIELDS_MAX,
        )
    except Exception:  # noqa: BLE001, S110 - msgpack raises many classes, some of them bare
        pass
    # Raised out here, so that the library's exception, which carries input, is no context of ours.
    raise KcmError(Code.MALFORMED, "the message is not msgpack")


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
