"""Files in pieces: how ``kcm encrypt`` writes a file of any size.

    "KCMF" | version u8 = 1 | file id (16 random bytes) | frames
    frame: length u32, big-endian | record

Each record is one piece of ``PIECE_SIZE`` bytes (the last one shorter, and empty for an empty
file). Its application context binds file id, index and whether it is the last. There is no count
and no length to believe: a reader knows that a piece is the last because the file ends there, and a
file that was cut, extended, reordered, repeated or mixed with another one then asks for a context
that no record has.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from kcm_schemas import limits, record

MAGIC: Final = b"KCMF"
VERSION: Final = 1
"""Of the format; another one is refused."""

PIECE_SIZE: Final = 512 * 1024
"""Bytes of plaintext in one piece: a piece and what encryption adds fit into one message."""

FRAME_MAX: Final = PIECE_SIZE + record.OVERHEAD_MAX
"""Bytes of one record in a file."""

PIECES_MAX: Final = 1 << 32
"""Pieces of a file: the index is bound as a u32. That is 2 PiB."""

HEADER_SIZE: Final = len(MAGIC) + 1 + limits.ID_SIZE
"""Bytes before the first frame."""

_LENGTH: Final = struct.Struct(">I")


class BrokenFileError(Exception):
    """The file is not what it says it is; the text says where it breaks."""


class NotEncryptedError(BrokenFileError):
    """The file does not begin as an encrypted one does."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece, in plain or as a record, and its place."""

    index: int
    last: bool
    data: bytes


def header(file_id: bytes) -> bytes:
    """The start of an encrypted file."""
    if len(file_id) != limits.ID_SIZE:
        raise ValueError("a file id has 16 bytes")
    return MAGIC + bytes((VERSION,)) + file_id


def frame(data: bytes) -> bytes:
    """One record as it stands in the file."""
    return _LENGTH.pack(len(data)) + data


def read_header(source: BinaryIO, start: bytes = b"") -> bytes:
    """The file id; ``start`` is what was read already. Raises ``BrokenFileError``."""
    head = start + source.read(HEADER_SIZE - len(start))
    if head[: len(MAGIC)] != MAGIC:
        raise NotEncryptedError("this is not an encrypted file")
    if len(head) < HEADER_SIZE:
        raise BrokenFileError("the file is cut short in its header")
    if head[len(MAGIC)] != VERSION:
        raise BrokenFileError("a later version of the file format")
    return head[len(MAGIC) + 1 :]


def plain_pieces(source: BinaryIO) -> Iterator[Piece]:
    """Cut a plain file into pieces; at least one."""
    data = source.read(PIECE_SIZE)
    for index in range(PIECES_MAX):
        following = source.read(PIECE_SIZE) if len(data) == PIECE_SIZE else b""
        yield Piece(index, not following, data)
        if not following:
            return
        data = following
    raise BrokenFileError("the file is too large for this format")


def records(source: BinaryIO) -> Iterator[Piece]:
    """The records of an encrypted file after its header; raises ``BrokenFileError``."""
    data = _read_frame(source)
    if data is None:
        raise BrokenFileError("the file is cut short before its first piece")
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
        raise BrokenFileError("the file is cut short inside a piece")
    size: int = _LENGTH.unpack(head)[0]
    if size > FRAME_MAX:
        raise BrokenFileError("a piece is longer than any piece can be")
    data = source.read(size)
    if len(data) < size:
        raise BrokenFileError("the file is cut short inside a piece")
    return data
