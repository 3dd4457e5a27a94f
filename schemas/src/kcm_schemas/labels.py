"""Context: one unambiguous byte string for what a value is and where it belongs.

``ctx(label, *parts)`` is, for the label and for each part in turn, a two-byte big-endian length
followed by the bytes. It is the associated data of every wrap and the first thing that every
signature covers. A label fixes the number and the types of its parts, so that two different
meanings never share an encoding.

Integers are big-endian; a value out of range is an error and is never truncated.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Final

PART_MAX: Final = 0xFFFF
"""Bytes of one part: its length is written in two bytes."""

_u16: Final = struct.Struct(">H").pack


class Part(Enum):
    """The type of one part of a label."""

    TEXT = "text"
    BYTES = "bytes"
    U32 = "u32"
    U64 = "u64"


def _sized(data: bytes) -> bytes:
    size = len(data)
    if size > PART_MAX:
        raise ValueError(f"a part of a context has {size} bytes, more than {PART_MAX}")
    return _u16(size) + data


def _text(value: str) -> bytes:
    return _sized(value.encode())


def _integer(size: int, value: int) -> bytes:
    try:
        return _u16(size) + value.to_bytes(size, "big")
    except OverflowError:
        raise ValueError(f"a part of a context is out of range: it is no u{8 * size}") from None


_ENCODERS: Final[dict[Part, tuple[type, Callable[..., bytes]]]] = {
    Part.TEXT: (str, _text),
    Part.BYTES: (bytes, _sized),
    Part.U32: (int, partial(_integer, 4)),
    Part.U64: (int, partial(_integer, 8)),
}
"""The Python type of each part, and its encoding with the length in front."""


class Label:
    """A use of cryptography: its name, and the types of the parts that it binds."""

    __slots__ = ("encoders", "name", "parts", "start")

    def __init__(self, name: str, parts: tuple[Part, ...]) -> None:
        self.name: Final = name
        self.parts: Final = parts
        self.start: Final = _sized(name.encode())
        self.encoders: Final = tuple(_ENCODERS[one] for one in parts)


_T, _B, _U32, _U64 = Part.TEXT, Part.BYTES, Part.U32, Part.U64

L2: Final = Label("kcm/v1/l2", (_T, _T, _U32, _B))
"""tenant, region, l2_version, seal_key_id: the inner wrap of a tenant root."""

L3: Final = Label("kcm/v1/l3", (_T, _T, _T, _U32, _U32))
"""tenant, region, service, l3_version, l2_version."""

L4: Final = Label("kcm/v1/l4", (_T, _T, _T, _T, _U32))
"""purpose (``record`` or ``stream``), tenant, region, service, l3_version."""

RECORD: Final = Label("kcm/v1/record", (_B, _B))
"""header, application context: the associated data of a payload."""

L1_CONTEXT: Final = Label("kcm/v1/l1", (_T, _T, _U32))
"""tenant, region, l2_version: passed to L1 providers that authenticate a context."""

SESSION: Final = Label("kcm/v1/session", (_T, _T, _B, _T, _B, _B, _U64, _U64))
"""region, callee, key_id, caller, caller's incarnation, session_id, issued (ms), expiry (ms)."""

TICKET: Final = Label("kcm/v1/ticket", (_B, _B))
"""SHA-256 of info, SHA-256 of the HPKE ciphertext: the message that a caller signs."""

REQUEST: Final = Label("kcm/v1/request", (_B, _U64, _B))
"""session_id, counter, the clear part of the body."""

REPLY: Final = Label("kcm/v1/reply", (_B, _T, _T))
"""SHA-256 of the request, callee, outcome (``answered``, ``refused``)."""

ASK: Final = Label("kcm/v1/ask", (_B, _T, _T, _T, _T, _U64, _U32, _B))
"""session_id, region, gateway, tenant, service, deadline (ms), l3_version, SHA-256 of the wrapped
keys: what an application's tag for a Core covers."""

SIGN: Final = Label("kcm/v1/sign", (_T, _T, _T, _B))
"""system, kind of statement, signer, SHA-256 of the body."""

ENDORSEMENT: Final = Label("kcm/v1/endorsement", (_T, _T, _B))
"""system, kind of statement, SHA-256 of the body: the digest that an endorsement lists."""

HOLD_ID: Final = Label("kcm/v1/hold-id", (_T, _T, _T, _T, _U64, _T, _B))
"""scope, target, cause, origin, issued (ms), reason, salt: what a hold's id commits to."""

KEY_USE: Final = Label("kcm/v1/key-use", (_U64, _T, _T))
"""link revision, key version, principal: besides the link, the key that an attestation is about."""

LIFT_PAGE: Final = Label("kcm/v1/lift-page", (_T, _T, _T, _U32))
"""cause, origin, signer, prefix: the place of a lift page, as a Core's disk names it."""

AUDIT_CHAIN: Final = Label("kcm/v1/audit-chain", (_B, _B))
"""previous hash, event."""

AUDIT_JOURNAL: Final = Label("kcm/v1/audit-journal", (_B, _B))
"""previous hash, SHA-256 of the entry: the chain of an Auditor's journal."""

AUDIT_STREAM: Final = Label("kcm/v1/audit-stream", (_B, _U64, _T, _B))
"""previous hash, sequence, subject, SHA-256 of the message: the chain of a region's audit stream,
over everything that the broker stores, whichever component wrote it."""


def ctx(label: Label, *parts: str | int | bytes) -> bytes:
    """Encode ``parts`` under ``label``.

    Raises ``ValueError`` when the number, type or size of the parts is not what the label fixes.
    """
    if len(parts) != len(label.encoders):
        raise ValueError(f"{label.name} binds {len(label.parts)} parts, got {len(parts)}")
    out = [label.start]
    for (kind, encode), value in zip(label.encoders, parts, strict=True):
        if not isinstance(value, kind) or value is True or value is False:
            raise ValueError(f"{label.name}: a part is not {kind.__name__}")
        out.append(encode(value))
    return b"".join(out)


_RECORD_LABEL: Final = RECORD.start


def record_aad_start(header_size: int) -> bytes:
    """Return the bytes of ``record_aad`` before a header of ``header_size`` bytes.

    They are the same for every record of a service, and ``record_aad_end`` for every record with
    one application context: a caller with many records computes each once.
    """
    return _RECORD_LABEL + _u16(header_size)


def record_aad_end(app_context: bytes) -> bytes:
    """Return the bytes of ``record_aad`` after the header; the caller has bounded the context."""
    return _u16(len(app_context)) + app_context


def record_aad(header: bytes, app_context: bytes) -> bytes:
    """Return ``ctx(RECORD, header, app_context)``; the caller has bounded both parts."""
    return record_aad_start(len(header)) + header + record_aad_end(app_context)
