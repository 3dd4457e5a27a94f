"""A hold and what became of it as one file, and what of it holds, without I/O.

The file has signed statements and nothing to be believed besides: who reads it brings the public
key of the operator root. ``root``, ``system`` and ``hold_id`` only say what the file claims to be.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

FORMAT: Final = "kcm-hold-evidence"
"""What a file says that it is."""

VERSION: Final = 1
"""The one version that there is."""

FILE_MAX: Final = 64 * 1024 * 1024
"""Bytes of a file: a roster, a result, a hold and eight lists of their largest sizes, in base64."""


class Unreadable(Exception):
    """A file is no evidence of a hold; the text says what is wrong, and holds nothing of it."""


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
        raise ValueError("not base64 as it is written here")
    return raw


def _to_base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


Raw = Annotated[bytes, BeforeValidator(_from_base64), PlainSerializer(_to_base64)]
"""Bytes, in base64 in the file."""

Hex = Annotated[str, Field(pattern=r"^([0-9a-f]{2})*\z", max_length=64)]


class Evidence(BaseModel):
    """What ``kcm hold export`` writes. ``lift`` and ``result`` are empty where there is none.

    ``lists`` has what lasts of those who signed something here and retired, by name.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    format: Literal["kcm-hold-evidence"]
    version: Literal[1]
    system: Annotated[str, Field(max_length=64)]
    root: Hex
    hold_id: Hex
    hold: Raw
    lift: Raw
    result: Raw
    roster: Raw
    lists: Annotated[dict[str, Raw], Field(max_length=8)]


def written(evidence: Evidence) -> bytes:
    """A file's content."""
    return evidence.model_dump_json(indent=2).encode() + b"\n"


def read(raw: bytes) -> Evidence:
    """Read a file's content; raises ``Unreadable``. Nothing in it counts yet."""
    if len(raw) > FILE_MAX:
        raise Unreadable(f"it is larger than {FILE_MAX} bytes")
    try:
        evidence = Evidence.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        known = first["loc"][0] if first["loc"] else ""
        if first["type"] == "json_invalid":
            raise Unreadable("it is not JSON, or is cut off") from None
        if known not in Evidence.model_fields:
            raise Unreadable("it has a field that is not known here") from None
        wrong = "is missing" if first["type"] == "missing" else "is not as it has to be"
        raise Unreadable(f"its field {known} {wrong}") from None
    json.loads(raw, object_pairs_hook=_once)  # it is well formed and flat by now
    return evidence


def _once(pairs: list[tuple[str, object]]) -> None:
    """Raise ``Unreadable`` for a name that is there twice: each reader would take another one."""
    if len({name for name, _ in pairs}) != len(pairs):
        raise Unreadable("it has a field twice")
