"""References to an L1 as URIs, parsed and validated without touching what they point to.

``pkcs11:`` follows RFC 7512, of which the attributes that pick a token and a key are understood
and all others refused: an attribute that would be ignored is a promise that would be broken.
A PIN never stands in a URI (URIs are stored, signed, shown and logged): ``pin-source`` names a
file. ``softkey:/absolute/directory`` is the development provider.

Whoever adds a provider adds a frozen dataclass, a parser here, and an arm in ``providers``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NoReturn, TypeAlias

URI_MAX: Final = 2048
"""Characters of a URI: the bound of free text on the wire."""

VALUE_MAX: Final = 255
"""Bytes of one decoded attribute that names something (PKCS#11 labels have 32 or a few more)."""

PATH_MAX: Final = 1024
"""Characters of a file's path."""

_PCT: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_PATH_RAW: Final = re.compile(r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=&]|%[0-9A-Fa-f]{2})*")
_QUERY_RAW: Final = re.compile(r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=/?|]|%[0-9A-Fa-f]{2})*")
_PATH_ATTRIBUTES: Final = frozenset({"token", "serial", "slot-id", "object", "id", "type"})
_QUERY_ATTRIBUTES: Final = frozenset({"module-path", "pin-source"})
_FILE_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._@+=,~-]+)+")


class UriReason(StrEnum):
    """Why a URI was refused."""

    TOO_LONG = "too_long"
    UNKNOWN_SCHEME = "unknown_scheme"
    BAD_SYNTAX = "bad_syntax"
    BAD_VALUE = "bad_value"
    BAD_PATH = "bad_path"
    DUPLICATE_ATTRIBUTE = "duplicate_attribute"
    UNKNOWN_ATTRIBUTE = "unknown_attribute"
    PIN_VALUE = "pin_value"
    MISSING_TOKEN = "missing_token"  # noqa: S105 - a reason, no credential
    MISSING_KEY = "missing_key"
    MISSING_MODULE = "missing_module"


_TEXT: Final = {
    UriReason.TOO_LONG: f"the URI is longer than {URI_MAX} characters",
    UriReason.UNKNOWN_SCHEME: "the scheme is none of: pkcs11, softkey",
    UriReason.BAD_SYNTAX: "attributes are name=value, percent-encoded, as in RFC 7512",
    UriReason.BAD_VALUE: "a value is empty, too long, not UTF-8 or not printable",
    UriReason.BAD_PATH: "a path is absolute, without . or .. and of plain characters",
    UriReason.DUPLICATE_ATTRIBUTE: "an attribute is given twice",
    UriReason.UNKNOWN_ATTRIBUTE: (
        "understood are token, serial, slot-id, object, id, type ? module-path, pin-source"
    ),
    UriReason.PIN_VALUE: "a PIN must not stand in a URI: put it in a file and name the file with "
    "pin-source=file:/path",
    UriReason.MISSING_TOKEN: "token, serial or slot-id must say which token",
    UriReason.MISSING_KEY: "object or id must say which key",
    UriReason.MISSING_MODULE: "module-path must name the PKCS#11 module",
}


class L1UriError(ValueError):
    """A URI that is not understood; ``reason`` says why, the text never repeats the URI."""

    def __init__(self, reason: UriReason) -> None:
        super().__init__(f"{reason.value}: {_TEXT[reason]}")
        self.reason = reason


class KeyClass(StrEnum):
    """The ``type`` attribute, of the values that can unwrap."""

    SECRET = "secret-key"  # noqa: S105 - RFC 7512's word
    PRIVATE = "private"


@dataclass(frozen=True, slots=True)
class Pkcs11Uri:
    """A key on a PKCS#11 token: every attribute given must match."""

    module_path: str
    token: str | None = None
    serial: str | None = None
    slot_id: int | None = None
    object: str | None = None
    id: bytes | None = None
    type: KeyClass | None = None
    pin_source: str | None = None


@dataclass(frozen=True, slots=True)
class SoftkeyUri:
    """A directory with a key in a file: for development."""

    directory: str


L1Uri: TypeAlias = Pkcs11Uri | SoftkeyUri


def scheme(text: str) -> str:
    """Return what stands before the colon, for logs and metrics: never more than 16 letters."""
    name = text.partition(":")[0]
    return name if re.fullmatch(r"[a-z][a-z0-9-]{0,15}", name) else "unknown"


def parse(text: str) -> L1Uri:
    """Parse a reference to an L1; raises `L1UriError`."""
    if len(text) > URI_MAX:
        _refuse(UriReason.TOO_LONG)
    match text.partition(":"):
        case ("pkcs11", ":", rest):
            return _pkcs11(rest)
        case ("softkey", ":", rest):
            return SoftkeyUri(_path(rest))
        case _:
            raise L1UriError(UriReason.UNKNOWN_SCHEME)


def _refuse(reason: UriReason) -> NoReturn:
    raise L1UriError(reason)


def _pkcs11(rest: str) -> Pkcs11Uri:
    path, _, query = rest.partition("?")
    found: dict[str, bytes] = {}
    for name, value in (
        *_attributes(path, ";", _PATH_ATTRIBUTES, _PATH_RAW),
        *_attributes(query, "&", _QUERY_ATTRIBUTES, _QUERY_RAW),
    ):
        if name in found:
            _refuse(UriReason.DUPLICATE_ATTRIBUTE)
        found[name] = value
    if not found.keys() & {"token", "serial", "slot-id"}:
        _refuse(UriReason.MISSING_TOKEN)
    if not found.keys() & {"object", "id"}:
        _refuse(UriReason.MISSING_KEY)
    if "module-path" not in found:
        _refuse(UriReason.MISSING_MODULE)
    return Pkcs11Uri(
        module_path=_path(_text(found["module-path"])),
        token=_optional(found.get("token")),
        serial=_optional(found.get("serial")),
        slot_id=_slot(found.get("slot-id")),
        object=_optional(found.get("object")),
        id=found.get("id"),
        type=_type(found.get("type")),
        pin_source=_pin_source(found.get("pin-source")),
    )


def _attributes(
    part: str, separator: str, known: frozenset[str], allowed: re.Pattern[str]
) -> Iterator[tuple[str, bytes]]:
    for item in part.split(separator) if part else ():
        name, equals, raw = item.partition("=")
        if name == "pin-value":
            _refuse(UriReason.PIN_VALUE)
        if not equals or allowed.fullmatch(raw) is None:
            _refuse(UriReason.BAD_SYNTAX)
        if name not in known:
            _refuse(UriReason.UNKNOWN_ATTRIBUTE)
        value = _PCT.sub(lambda hit: bytes([int(hit[1], 16)]), raw.encode("ascii"))
        if not 0 < len(value) <= PATH_MAX:
            _refuse(UriReason.BAD_VALUE)
        yield name, value


def _text(value: bytes) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        raise L1UriError(UriReason.BAD_VALUE) from None
    if not text.isprintable():
        _refuse(UriReason.BAD_VALUE)
    return text


def _optional(value: bytes | None) -> str | None:
    if value is None:
        return None
    if len(value) > VALUE_MAX:
        _refuse(UriReason.BAD_VALUE)
    return _text(value)


def _slot(value: bytes | None) -> int | None:
    if value is None:
        return None
    if re.fullmatch(rb"[0-9]{1,10}", value) is None:
        _refuse(UriReason.BAD_VALUE)
    return int(value)


def _type(value: bytes | None) -> KeyClass | None:
    try:
        return None if value is None else KeyClass(_text(value))
    except L1UriError:
        raise
    except ValueError:
        raise L1UriError(UriReason.BAD_VALUE) from None


def _pin_source(value: bytes | None) -> str | None:
    if value is None:
        return None
    # RFC 7512 allows a bare path, a file URI with an authority and commands: one form is enough.
    kind, _, path = _text(value).partition(":")
    if kind != "file":
        _refuse(UriReason.BAD_PATH)
    return _path(path)


def _path(path: str) -> str:
    parts = path.split("/")
    if len(path) > PATH_MAX or _FILE_PATH.fullmatch(path) is None or {".", ".."} & set(parts):
        _refuse(UriReason.BAD_PATH)
    return path
