"""Strategies: any message of any model, and one value in every form that msgpack allows."""

from __future__ import annotations

import importlib
import pkgutil
import struct
import types
from collections.abc import Iterator
from enum import Enum
from functools import cache
from typing import Any, Final, Literal, Union, get_args, get_origin

import kcm_schemas
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from kcm_schemas import limits
from kcm_schemas.app import App, AppGrant
from kcm_schemas.codec import Message, pack
from kcm_schemas.control import KEY_SCOPES, Hold, Lease, Lifts, PullRequest, Scope
from kcm_schemas.names import TOKEN
from kcm_schemas.roster import Instance, Role
from kcm_schemas.signed import Signature, Signed
from pydantic.fields import FieldInfo


def models() -> list[type[Message]]:
    """Every message of the wire."""
    for module in pkgutil.walk_packages(kcm_schemas.__path__, "kcm_schemas."):
        importlib.import_module(module.name)
    # Other packages make messages of their own, which the wire does not carry.
    ours = [m for m in Message.__subclasses__() if m.__module__.startswith("kcm_schemas.")]
    return sorted(ours, key=lambda model: model.__name__)


@cache
def message(model: type[Message]) -> SearchStrategy[Message]:
    """Any valid message of a model; made once, because making one takes longer than a draw."""
    fields = {
        name: _any(field.annotation, field.metadata) for name, field in model.model_fields.items()
    }
    if model is Signed:
        fields["signatures"] = fields["signatures"].map(_by_signer)
    if model not in _TOGETHER:
        return st.builds(model, **fields)
    together = _TOGETHER[model]
    others = {name: one for name, one in fields.items() if name not in together[0]}
    return st.builds(lambda some, **rest: model(**some, **rest), together[1], **others)


def _page(prefix: int, rests: set[bytes]) -> dict[str, Any]:
    return {"prefix": prefix, "ids": b"".join(bytes((prefix,)) + one for one in sorted(rests))}


_PARTS: Final = (
    {"parts": b"", "pages": b""},
    {"parts": bytes(limits.PARTS_SIZE), "pages": bytes(limits.PAGES_SIZE)},
)
_RESTS: Final = st.sets(st.binary(min_size=15, max_size=15), min_size=1, max_size=5)

_SHARDS: Final = ({"registry": []}, {"registry": [bytes(limits.ID_SIZE)] * limits.REGISTRY_SHARDS})

_NAMES: Final = st.from_regex(TOKEN, fullmatch=True)
_VERBS: Final = st.sets(st.sampled_from(["decrypt", "encrypt"]), min_size=1)
_PLACES: Final = st.dictionaries(st.tuples(_NAMES, _NAMES | st.just("*")), _VERBS, max_size=3)


def _app(places: dict[tuple[str, str], set[Any]], regions: set[str], key: bytes) -> dict[str, Any]:
    grants = [
        AppGrant(tenant=tenant, service=service, verbs=sorted(verbs))
        for (tenant, service), verbs in sorted(places.items())
    ]
    return {"grants": grants, "regions": sorted(regions), "public_key": key}


def _target(scope: str, name: str, key: bytes) -> dict[str, object]:
    return {"scope": scope, "target": f"{name}.{key.hex()}" if scope in KEY_SCOPES else name}


_TARGETS: Final = st.builds(
    _target,
    st.sampled_from(get_args(Scope)),
    st.from_regex(TOKEN, fullmatch=True),
    st.binary(min_size=16, max_size=16),
)

_KEYS: Final = st.binary(min_size=31, max_size=31).map(lambda some: some + b"\x3f")
_APPS: Final = st.builds(_app, _PLACES, st.sets(_NAMES, min_size=1, max_size=3), _KEYS)


def _instance(role: Role, application: str) -> dict[str, Any]:
    return {"role": role, "application": application if role is Role.GATEWAY else None}


_ROLES: Final = st.builds(_instance, st.sampled_from(Role), _NAMES)

_TOGETHER: Final[dict[type[Message], tuple[set[str], SearchStrategy[dict[str, Any]]]]] = {
    PullRequest: ({"parts", "pages"}, st.sampled_from(_PARTS)),
    Lease: ({"registry"}, st.sampled_from(_SHARDS)),
    Lifts: ({"prefix", "ids"}, st.builds(_page, st.integers(0, 255), _RESTS)),
    App: ({"grants", "regions", "public_key"}, _APPS),
    Hold: ({"scope", "target"}, _TARGETS),
    Instance: ({"role", "application"}, _ROLES),
}
"""Fields that depend on one another."""


def _by_signer(signatures: list[Signature]) -> list[Signature]:
    """In the order of their signers, each once."""
    return [one for _, one in sorted({one.signer: one for one in signatures}.items())]


def _any(annotation: Any, metadata: list[Any]) -> SearchStrategy[Any]:
    bounds = _bounds(metadata)
    arguments = get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return _any(arguments[0], [*annotation.__metadata__, *metadata])
    origin = get_origin(annotation)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in {Union, types.UnionType}:
        return st.one_of([_any(argument, []) for argument in arguments])
    if origin is list:
        least = bounds.get("min_length", 0)
        most = max(least, min(bounds.get("max_length", 3), 3))
        return st.lists(_any(arguments[0], []), min_size=least, max_size=most)
    return _plain(annotation, bounds)


def _plain(annotation: Any, bounds: dict[str, Any]) -> SearchStrategy[Any]:  # noqa: PLR0911 - a case for each type
    if isinstance(annotation, type) and issubclass(annotation, Message):
        return message(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return st.sampled_from(annotation)
    if annotation is type(None):
        return st.none()
    if annotation is bool:
        return st.booleans()
    if annotation is int:
        most = bounds["lt"] - 1 if "lt" in bounds else bounds["le"]
        return st.integers(bounds.get("ge", 0), most)
    sizes = {"min_size": bounds.get("min_length", 0), "max_size": bounds.get("max_length", 40)}
    if annotation is bytes:
        sizes["max_size"] = min(sizes["max_size"], max(sizes["min_size"], 300))
        return st.binary(**sizes)
    assert annotation is str, annotation
    if "pattern" in bounds:
        most = bounds.get("max_length", 64)
        pattern = bounds["pattern"].replace(r"\z", r"\Z")
        return st.from_regex(pattern).filter(lambda text: len(text) <= most)
    return st.text(st.characters(codec="utf-8"), max_size=min(sizes["max_size"], 60))


def _bounds(metadata: list[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in metadata:
        if isinstance(item, FieldInfo):
            found |= _bounds(item.metadata)
            continue
        for name in ("ge", "le", "lt", "min_length", "max_length", "pattern"):
            value = getattr(item, name, None)
            if value is not None:
                found[name] = value
    return found


def other_forms(value: Any) -> Iterator[bytes]:
    """``value`` in every form that msgpack allows and that differs in one place from the canonical.

    Also in forms that a lenient reader takes for the same: a float or a truth value for an integer,
    text for bytes, fields in another order, a field twice.
    """
    match value:
        case None:
            return
        case bool():
            yield b"\x01" if value else b"\x00"
        case int():
            yield from _integer(value)
        case str():
            yield from _text(value.encode())
        case bytes():
            yield from _binary(value)
        case list():
            items = [pack(item) for item in value]
            for head in _heads(len(items), 0x90, 0xDC)[1:]:
                yield head + b"".join(items)
            yield from _one_other(_heads(len(items), 0x90, 0xDC)[0], value, items)
        case dict():
            yield from _other_maps(value)
        case _:
            raise AssertionError(type(value))


def _one_other(head: bytes, values: list[Any], packed: list[bytes]) -> Iterator[bytes]:
    for at, value in enumerate(values):
        before, after = head + b"".join(packed[:at]), b"".join(packed[at + 1 :])
        for other in other_forms(value):
            yield before + other + after


def _other_maps(value: dict[str, Any]) -> Iterator[bytes]:
    pairs = [pack(key) + pack(item) for key, item in value.items()]
    head, *wide = _heads(len(pairs), 0x80, 0xDE)
    for other in wide:
        yield other + b"".join(pairs)
    for at in range(len(pairs) - 1):
        swapped = [*pairs[:at], pairs[at + 1], pairs[at], *pairs[at + 2 :]]
        yield head + b"".join(swapped)
    for pair in pairs:
        yield _heads(len(pairs) + 1, 0x80, 0xDE)[0] + b"".join([*pairs, pair])
    flat = [part for pair in value.items() for part in pair]
    yield from _one_other(head, flat, [pack(part) for part in flat])


def _integer(value: int) -> list[bytes]:
    forms = [b"\xc3" if value else b"\xc2"] if value < 2 else []
    for tag, code in zip(b"\xcc\xcd\xce\xcf\xd0\xd1\xd2\xd3", "BHIQbhiq", strict=True):
        try:
            forms.append(bytes((tag,)) + struct.pack(f">{code}", value))
        except struct.error:
            continue
    forms += [b"\xcb" + struct.pack(">d", value), b"\xca" + struct.pack(">f", value)]
    return [form for form in forms if form != pack(value)]


def _text(text: bytes) -> list[bytes]:
    forms = [head + text for first in (0xD9, 0xC4) for head in _wide(len(text), first)]
    return [form for form in forms if form != pack(text.decode())]


def _binary(data: bytes) -> list[bytes]:
    forms = [head + data for first in (0xC4, 0xD9) for head in _wide(len(data), first)]
    forms += [head + b"\x05" + data for head in _wide(len(data), 0xC7)]
    return [form for form in forms if form != pack(data)]


def _wide(size: int, first: int) -> list[bytes]:
    """Heads with lengths of 8, 16 and 32 bits, from tag ``first`` on."""
    out = [bytes((first,)) + struct.pack(">B", size)] if size < 256 else []
    out += [bytes((first + 1,)) + struct.pack(">H", size)] if size < 65536 else []
    return [*out, bytes((first + 2,)) + struct.pack(">I", size)]


def _heads(size: int, fixed: int, first: int) -> list[bytes]:
    """Heads of a list or map, the canonical one first."""
    wide = [bytes((first,)) + struct.pack(">H", size)]
    wide += [bytes((first + 1,)) + struct.pack(">I", size)]
    return [bytes((fixed | size,)), *wide] if size < 16 else wide
