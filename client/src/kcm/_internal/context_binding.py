"""The application contexts with which the ``kcm`` command binds records to their positions.

A record names its region, tenant and service, but not its position in a file or table. The
application context binds that position:

- a piece of a file: ``ctx("kcm/v1/file-piece", file id, index, last, user's context)``. Decryption
  fails for pieces that are moved, repeated, mixed or removed.
- a cell of a table: ``ctx("kcm/v1/cell", field, user's context)``. A cell does not decrypt in
  another column. It does in another row, and a repeated or removed row is not detected.
- a cell with bound columns: ``ctx("kcm/v1/bound-cell", field, SHA-256 of the bound columns, user's
  context)``. A cell decrypts only in a row with the same values in those columns.

A program that decrypts such a record with the SDK passes the same context.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from kcm_schemas import limits
from kcm_schemas.labels import Label, Part, ctx

USER_CONTEXT_MAX: Final = limits.APP_CONTEXT_MAX - 512
"""Bytes of a user's context. The rest of the room is for the position of a piece or cell."""

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
    """Return the application context of one piece of a file that ``kcm encrypt`` wrote.

    ``file_id`` has 16 bytes, ``index`` counts from 0, and ``user`` is the context given to the
    command. Raises ``ValueError`` for a ``user`` of more than 3584 bytes.
    """
    return ctx(FILE_PIECE, file_id, index, int(last), _bounded(user))


def cell_context(field: str, user: bytes = b"", bound: Mapping[str, bytes] | None = None) -> bytes:
    """Return the application context of a cell of a table that ``kcm encrypt`` wrote.

    ``field`` is the column's name, ``user`` the context given to the command. ``bound`` has the
    values of the row's bound columns (``--bind``) in UTF-8: the cell's text without its quotes for
    CSV, the bytes of the value for JSON lines. Raises ``ValueError`` for a name of more than 255
    bytes or a ``user`` of more than 3584.
    """
    if not bound:
        return ctx(CELL, _name(field).decode(), _bounded(user))
    return ctx(BOUND_CELL, _name(field).decode(), _digest(bound), _bounded(user))


def _digest(bound: Mapping[str, bytes]) -> bytes:
    """Return SHA-256 over the columns in order of names: two lengths (u32), name, value."""
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
        raise ValueError(f"the context of a file or table has at most {USER_CONTEXT_MAX} bytes")
    return user
