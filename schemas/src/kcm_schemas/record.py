"""The record: a self-describing header, then ciphertext and tag.

``docs/wire-format.md`` is the normative text. The whole header is associated data of the payload,
and a header that parses rebuilds to the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kcm_schemas import limits
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.names import TOKEN, is_name

MAGIC: Final = b"KCM1"
SUITE_CARRIED: Final = 1
"""AES-256-GCM under a data key that the header carries, wrapped."""

SUITE_SUBJECT: Final = 2
"""XAES-256-GCM under a data subject's key."""

SUITE_STREAM: Final = 3
"""Chunked AES-256-GCM under a key derived from a carried one."""

_U32: Final = struct.Struct(">I")
_CARRIED_TAIL: Final = 4 + limits.WRAPPED_SIZE + 4
OVERHEAD_MAX: Final = 4 + 1 + 3 * (1 + limits.NAME_MAX) + _CARRIED_TAIL + limits.TAG_SIZE
"""The most bytes that suite 1 adds to a plaintext."""


@dataclass(frozen=True, slots=True)
class Header:
    """A suite 1 header.

    ``raw`` has the bytes of the header in the record, ``wrapped`` its 72-byte data key.
    """

    region: str
    tenant: str
    service: str
    l3_version: int
    wrapped: bytes
    index: int
    raw: bytes


def prefix(region: str, tenant: str, service: str, l3_version: int) -> bytes:
    """Return the part of a suite 1 header that all records of a service key share.

    Raises ``ValueError`` for version 0 and for a name that violates the grammar.
    """
    if l3_version == 0:
        raise ValueError("versions of a service key begin at 1")
    return names(region, tenant, service) + _U32.pack(l3_version)


def names(region: str, tenant: str, service: str) -> bytes:
    """Return the start of every suite 1 record of a service, whatever the version of its key."""
    parts = b"".join(_name(text) for text in (region, tenant, service))
    return MAGIC + bytes((SUITE_CARRIED,)) + parts


def key_names(region: str, tenant: str, service: str, records: Sequence[bytes]) -> list[bytes]:
    """Return the names of the data keys of a service's records, each once, as they first appear.

    A name has 76 bytes: L3 version and wrapped key. Records that are not of this service have none.
    """
    start = names(region, tenant, service)
    name = slice(len(start), len(start) + 4 + limits.WRAPPED_SIZE)
    least = len(start) + _CARRIED_TAIL + limits.TAG_SIZE
    own = (one[name] for one in records if len(one) >= least and one.startswith(start))
    return list(dict.fromkeys(own))


def build(start: bytes, wrapped: bytes, index: int) -> bytes:
    """Return a suite 1 header: ``prefix(...)``, the wrapped key, the record's index under it.

    Raises ``ValueError`` unless ``wrapped`` has 72 bytes.
    """
    if len(wrapped) != limits.WRAPPED_SIZE:
        raise ValueError(f"a wrapped key has {limits.WRAPPED_SIZE} bytes, not {len(wrapped)}")
    return start + wrapped + _U32.pack(index)


def _name(text: str) -> bytes:
    if not is_name(text):
        raise ValueError("a name has 1 to 63 characters of a-z, 0-9 and -")
    return bytes((len(text),)) + text.encode()


def parse(record: bytes) -> Header:
    """Read the header of a record; raises only ``malformed``.

    Checks lengths, suite and the grammar of the names; authenticity is not checked.
    """
    if record[:4] != MAGIC:
        later = record[:3] == MAGIC[:3] and record[3:4].isdigit()
        raise KcmError(Code.MALFORMED, "a later record format" if later else "not a record")
    if record[4:5] != bytes((SUITE_CARRIED,)):
        raise KcmError(Code.MALFORMED, "unsupported suite")
    region, at = _read_name(record, 5)
    tenant, at = _read_name(record, at)
    service, at = _read_name(record, at)
    end = at + _CARRIED_TAIL
    if len(record) < end + limits.TAG_SIZE:
        raise KcmError(Code.MALFORMED, "the record is truncated")
    l3_version: int = _U32.unpack_from(record, at)[0]
    if l3_version == 0:
        # In requests, 0 asks for the current version, so a record must not contain it.
        raise KcmError(Code.MALFORMED, "versions of a service key begin at 1")
    return Header(
        region=region,
        tenant=tenant,
        service=service,
        l3_version=l3_version,
        wrapped=bytes(record[at + 4 : at + 4 + limits.WRAPPED_SIZE]),
        index=_U32.unpack_from(record, end - 4)[0],
        raw=bytes(record[:end]),
    )


def _read_name(record: bytes, at: int) -> tuple[str, int]:
    size = record[at] if at < len(record) else 0
    text = bytes(record[at + 1 : at + 1 + size]).decode("latin-1")
    if len(text) != size or TOKEN.fullmatch(text) is None:
        raise KcmError(Code.MALFORMED, "invalid name in the header")
    return text, at + 1 + size
