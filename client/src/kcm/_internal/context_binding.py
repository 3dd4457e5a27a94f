"""What the ``kcm`` command binds to the records that it makes, as their application context.

A record says where it belongs (region, tenant, service) but not its place in a file or table. That
place is bound here:

- a piece of a file: ``ctx("kcm/v1/file-piece", file id, index, last, user's context)``. Pieces that
  are moved, repeated, mixed or left out do not decrypt;
- a cell of a table: ``ctx("kcm/v1/cell", field, user's context)``. A cell does not decrypt in
  another column. In another row it does, and a row that is repeated or left out does not show;
- a cell with bound columns: ``ctx("kcm/v1/bound-cell", field, SHA-256 of the bound columns, user's
  context)``. Such a cell decrypts only beside the same values of those columns.

A program that wants to open such a record with the SDK gives the same context.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from kcm_schemas import limits
from kcm_schemas.labels import Label, Part, ctx

USER_CONTEXT_MAX: Final = limits.APP_CONTEXT_MAX - 512
"""Bytes of a user's own context: leaves room for a piece's or a cell's place."""

FIELD_MAX: Final = 255
"""Bytes of a column's name, in UTF-8."""

FILE_PIECE: Final = Label("kcm/v1/file-piece", (Part.BYTES, Part.U32, Part.U32, Part.BYTES))
"""file id, index from 0, 1 for the last piece and else 0, the user's context."""

CELL: Final = Label("kcm/v1/cell", (Part.TEXT, Part.BYTES))
"""the column's name, the user's context."""

BOUND_CELL: Final = Label("kcm/v1/bound-cell", (Part.TEXT, Part.BYTES, Part.BYTES))
"""the column's name, the digest of the bound columns, the user's context."""

_LENGTHS: Final = struct.Struct(">II")


def piece_context(file_id: bytes, index: int, *, last: bool, user: bytes = b"") -> bytes:
    """The application context of one piece of a file."""
    return ctx(FILE_PIECE, file_id, index, int(last), _bounded(user))


def cell_context(field: str, user: bytes = b"", bound: Mapping[str, bytes] | None = None) -> bytes:
    """The application context of a cell.

    ``bound`` has the row's bound columns with their values: of CSV the cell's text without its
    quotes, of JSON lines the value as it is written there, both in UTF-8.
    """
    if not bound:
        return ctx(CELL, _name(field).decode(), _bounded(user))
    return ctx(BOUND_CELL, _name(field).decode(), _digest(bound), _bounded(user))


def _digest(bound: Mapping[str, bytes]) -> bytes:
    """SHA-256 over each column in the order of names: two lengths (u32), the name, the value."""
    found = sha256()
    for name, value in sorted((_name(name), value) for name, value in bound.items()):
        found.update(_LENGTHS.pack(len(name), len(value)) + name + value)
    return found.digest()


def _name(column: str) -> bytes:
    name = column.encode()
    if len(name) > FIELD_MAX:
        raise ValueError(f"a column's name has at most {FIELD_MAX} bytes")
    return name


def _bounded(user: bytes) -> bytes:
    if len(user) > USER_CONTEXT_MAX:
        raise ValueError(f"a context has at most {USER_CONTEXT_MAX} bytes here")
    return user
