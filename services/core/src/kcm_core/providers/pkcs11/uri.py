"""``pkcs11:`` URIs follow RFC 7512.

The attributes that select a token and a key are supported, in the form in which tools print them.
All others are refused, because an ignored attribute would be a silent change of meaning. A URI
never contains a PIN (URIs are stored, signed, shown and logged): ``pin-source`` names a file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from kcm_core.providers.uri_parts import (
    QUERY_RAW,
    VALUE_MAX,
    L1UriError,
    UriReason,
    attributes,
    file_path,
    file_uri,
    refuse,
    text_of,
)

_PATH_RAW: Final = re.compile(r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=&]|%[0-9A-Fa-f]{2})*")
_PATH_ATTRIBUTES: Final = frozenset(
    {"token", "serial", "manufacturer", "model", "slot-id", "object", "id", "type"}
)
_QUERY_ATTRIBUTES: Final = frozenset({"module-path", "pin-source"})
_MAY_BE_EMPTY: Final = frozenset({"serial", "manufacturer", "model"})
"""Attributes that may be empty, because tokens have them so and tools print them so."""


class KeyClass(StrEnum):
    """The ``type`` attribute, with the values that can unwrap."""

    SECRET = "secret-key"  # noqa: S105 - the spelling of RFC 7512
    PRIVATE = "private"


@dataclass(frozen=True, slots=True)
class Pkcs11Uri:
    """A key on a PKCS#11 token: every given attribute must match."""

    module_path: str
    token: str | None = None
    serial: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    slot_id: int | None = None
    object: str | None = None
    id: bytes | None = None
    type: KeyClass | None = None
    pin_source: str | None = None


def parse_pkcs11(rest: str) -> Pkcs11Uri:
    """Parse the part after ``pkcs11:``; raises ``L1UriError``."""
    path, _, query = rest.partition("?")
    found: dict[str, bytes] = {}
    for name, value in (
        *attributes(path, ";", _PATH_ATTRIBUTES, _PATH_RAW, _MAY_BE_EMPTY),
        *attributes(query, "&", _QUERY_ATTRIBUTES, QUERY_RAW),
    ):
        if name in found:
            refuse(UriReason.DUPLICATE_ATTRIBUTE)
        found[name] = value
    if not any(found.get(name) for name in ("token", "serial", "slot-id")):
        refuse(UriReason.MISSING_TOKEN)
    if not found.keys() & {"object", "id"}:
        refuse(UriReason.MISSING_KEY, "object or id must name the key")
    if "module-path" not in found:
        refuse(UriReason.MISSING_MODULE)
    source = found.get("pin-source")
    return Pkcs11Uri(
        module_path=file_path(text_of(found["module-path"])),
        token=_optional(found.get("token")),
        serial=_optional(found.get("serial")),
        manufacturer=_optional(found.get("manufacturer")),
        model=_optional(found.get("model")),
        slot_id=_slot(found.get("slot-id")),
        object=_optional(found.get("object")),
        id=found.get("id"),
        type=_type(found.get("type")),
        pin_source=None if source is None else file_uri(text_of(source)),
    )


def _optional(value: bytes | None) -> str | None:
    if value is None:
        return None
    if len(value) > VALUE_MAX:
        refuse(UriReason.BAD_VALUE)
    return text_of(value)


def _slot(value: bytes | None) -> int | None:
    if value is None:
        return None
    if re.fullmatch(rb"[0-9]{1,10}", value) is None:
        refuse(UriReason.BAD_VALUE)
    return int(value)


def _type(value: bytes | None) -> KeyClass | None:
    try:
        return None if value is None else KeyClass(text_of(value))
    except L1UriError:
        raise
    except ValueError:
        hint = "type must be secret-key or private: no other type can unwrap"
        raise L1UriError(UriReason.BAD_VALUE, hint) from None
