"""The evidence of a hold as one file: its format, read and written without I/O.

The file consists of signed statements. Nothing else in it is trusted: the reader needs the public
key of the operator root. ``root``, ``system`` and ``hold_id`` are only what the file claims.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

FORMAT: Final = "kcm-hold-evidence"
"""The value of the field ``format``."""

VERSION: Final = 2
"""The version of the format. In version 1, results listed ``boots`` in place of incarnations."""

FILE_MAX: Final = 64 * 1024 * 1024
"""Bytes of a file: a roster, a result, a hold and eight lists at their largest, in base64."""


class Unreadable(Exception):
    """The file is not evidence of a hold. The text gives the reason and quotes no content."""


def _from_base64(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError("base64 is text")  # noqa: TRY004 - what pydantic takes
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not base64") from None
    if base64.b64encode(raw).decode() != value:
        raise ValueError("not canonical base64")
    return raw


def _to_base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


Raw = Annotated[bytes, BeforeValidator(_from_base64), PlainSerializer(_to_base64)]
"""Bytes, in base64 in the file."""

Hex = Annotated[str, Field(pattern=r"^([0-9a-f]{2})*\z", max_length=64)]


class Evidence(BaseModel):
    """What ``kcm hold export`` writes. ``lift`` and ``result`` are empty if there is none.

    ``lists`` has the endorsements of retired signers of these statements, by name.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    format: Literal["kcm-hold-evidence"]
    version: Literal[2]
    system: Annotated[str, Field(max_length=64)]
    root: Hex
    hold_id: Hex
    hold: Raw
    lift: Raw
    result: Raw
    roster: Raw
    lists: Annotated[dict[str, Raw], Field(max_length=8)]


def written(evidence: Evidence) -> bytes:
    """Return the content of a file."""
    return evidence.model_dump_json(indent=2).encode() + b"\n"


def read(raw: bytes) -> Evidence:
    """Read the content of a file; raises ``Unreadable``. No signature is verified here."""
    if len(raw) > FILE_MAX:
        raise Unreadable(f"it is larger than {FILE_MAX} bytes")
    try:
        evidence = Evidence.model_validate_json(raw)
    except ValidationError as error:
        if (found := _version(raw)) is not None:
            text = f"it has version {found} of the format; this kcm reads version {VERSION}"
            raise Unreadable(text) from None
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        known = first["loc"][0] if first["loc"] else ""
        if first["type"] == "json_invalid":
            raise Unreadable("it is not JSON, or is truncated") from None
        if known not in Evidence.model_fields:
            raise Unreadable("it has an unknown field") from None
        wrong = "is missing" if first["type"] == "missing" else "is not valid"
        raise Unreadable(f"its field {known} {wrong}") from None
    json.loads(raw, object_pairs_hook=_once)  # it is well formed and flat by now
    return evidence


def _version(raw: bytes) -> int | None:
    """Return the version of a file of this format, if it is another one."""
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return None
    found = content.get("version")
    other = isinstance(found, int) and not isinstance(found, bool) and 0 < found < 1 << 32
    return found if other and found != VERSION else None


def _once(pairs: list[tuple[str, object]]) -> None:
    """Raise ``Unreadable`` for a repeated name, because readers differ in which value they use."""
    if len({name for name, _ in pairs}) != len(pairs):
        raise Unreadable("it has a field twice")
