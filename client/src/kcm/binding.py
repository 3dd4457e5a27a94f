"""What the ``kcm`` command binds to the records that it makes, as their application context.

A record says where it belongs (region, tenant, service) but not its place in a file or table. That
place is bound here, so that pieces and cells that are moved, repeated or left out do not decrypt:

- a piece of a file: ``ctx("kcm/v1/file-piece", file id, index, last, user's context)``;
- a cell of a table: ``ctx("kcm/v1/cell", field, user's context)``.

A program that wants to open such a record with the SDK gives the same context.
"""

from __future__ import annotations

from typing import Final

from kcm_crypto.context import Label, Part, ctx
from kcm_schemas import limits

USER_CONTEXT_MAX: Final = limits.APP_CONTEXT_MAX - 512
"""Bytes of a user's own context: leaves room for a piece's or a cell's place."""

FIELD_MAX: Final = 255
"""Bytes of a column's name, in UTF-8."""

FILE_PIECE: Final = Label("kcm/v1/file-piece", (Part.BYTES, Part.U32, Part.U32, Part.BYTES))
"""file id, index from 0, 1 for the last piece and else 0, the user's context."""

CELL: Final = Label("kcm/v1/cell", (Part.TEXT, Part.BYTES))
"""the column's name, the user's context."""


def piece_context(file_id: bytes, index: int, *, last: bool, user: bytes = b"") -> bytes:
    """The application context of one piece of a file."""
    return ctx(FILE_PIECE, file_id, index, int(last), _bounded(user))


def cell_context(field: str, user: bytes = b"") -> bytes:
    """The application context of every cell of a column."""
    if len(field.encode()) > FIELD_MAX:
        raise ValueError(f"a column's name has at most {FIELD_MAX} bytes")
    return ctx(CELL, field, _bounded(user))


def _bounded(user: bytes) -> bytes:
    if len(user) > USER_CONTEXT_MAX:
        raise ValueError(f"a context has at most {USER_CONTEXT_MAX} bytes here")
    return user
