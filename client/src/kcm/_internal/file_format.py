"""The format of an encrypted file, which ``kcm encrypt`` writes in pieces.

    "KCMF" | version u8 = 1 | file id (16 random bytes) | frames
    frame: length u32, big-endian | record

Each record is one piece of ``PIECE_SIZE`` bytes. The last one may be shorter; an empty file has one
empty piece. The application context of a record binds the file id, the index, and whether the piece
is the last one. The format has no count and no total length: the end of the file determines the
last piece. If a file was truncated, extended, reordered, repeated or mixed with another one, a
reader uses a context that differs from the record's, and decryption fails.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from kcm_schemas import limits, record

MAGIC: Final = b"KCMF"
VERSION: Final = 1
"""The version of the format. A file of another version is refused."""

PIECE_SIZE: Final = 512 * 1024
"""Bytes of plaintext in one piece. An encrypted piece fits into one message."""

FRAME_MAX: Final = PIECE_SIZE + record.OVERHEAD_MAX
"""Bytes of one record in a file."""

PIECES_MAX: Final = 1 << 32
"""Pieces of a file. The index is a u32, so a file has at most 2 PiB."""

HEADER_SIZE: Final = len(MAGIC) + 1 + limits.ID_SIZE
"""Bytes before the first frame."""

_LENGTH: Final = struct.Struct(">I")


class BrokenFileError(Exception):
    """The file is damaged. The text says where."""


class NotEncryptedError(BrokenFileError):
    """The file does not begin with the magic number."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece, as plaintext or record, and its position."""

    index: int
    last: bool
    data: bytes


def header(file_id: bytes) -> bytes:
    """Return the header of an encrypted file."""
    if len(file_id) != limits.ID_SIZE:
        raise ValueError("a file id has 16 bytes")
    return MAGIC + bytes((VERSION,)) + file_id


def frame(data: bytes) -> bytes:
    """Return the frame of one record."""
    return _LENGTH.pack(len(data)) + data


def read_header(source: BinaryIO, start: bytes = b"") -> bytes:
    """Return the file id. ``start`` has the bytes read already. Raises ``BrokenFileError``."""
    head = start + source.read(HEADER_SIZE - len(start))
    if head[: len(MAGIC)] != MAGIC:
        raise NotEncryptedError("this is not an encrypted file")
    if len(head) < HEADER_SIZE:
        raise BrokenFileError("the file is truncated in its header")
    if (found := head[len(MAGIC)]) != VERSION:
        text = f"the file has version {found} of its format; this kcm reads {VERSION}"
        raise BrokenFileError(text)
    return head[len(MAGIC) + 1 :]


def plain_pieces(source: BinaryIO) -> Iterator[Piece]:
    """Split a plain file into pieces: at least one."""
    data = source.read(PIECE_SIZE)
    for index in range(PIECES_MAX):
        following = source.read(PIECE_SIZE) if len(data) == PIECE_SIZE else b""
        yield Piece(index, not following, data)
        if not following:
            return
        data = following
    raise BrokenFileError("the file is too large for this format")


def records(source: BinaryIO) -> Iterator[Piece]:
    """Yield the records of an encrypted file after its header; raises ``BrokenFileError``."""
    data = _read_frame(source)
    if data is None:
        raise BrokenFileError("the file is truncated before its first piece")
    for index in range(PIECES_MAX):
        following = _read_frame(source)
        yield Piece(index, following is None, data)
        if following is None:
            return
        data = following
    raise BrokenFileError("the file has more pieces than the format allows")


def _read_frame(source: BinaryIO) -> bytes | None:
    head = source.read(_LENGTH.size)
    if not head:
        return None
    if len(head) < _LENGTH.size:
        raise BrokenFileError("the file is truncated inside a piece")
    size: int = _LENGTH.unpack(head)[0]
    if size > FRAME_MAX:
        raise BrokenFileError("a piece is longer than the format allows")
    data = source.read(size)
    if len(data) < size:
        raise BrokenFileError("the file is truncated inside a piece")
    return data
