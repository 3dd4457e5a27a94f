"""Whole files: cut into pieces, a window of pieces at a time, in order.

Memory is bounded by the window, whatever the file's size. Any bad piece ends the command: half a
file is no file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, Final

from kcm_schemas import limits, record

from kcm._internal import file_format
from kcm._internal.batches import PAYLOAD_MAX
from kcm._internal.client import Client
from kcm._internal.context_binding import piece_context
from kcm._internal.file_format import Piece
from kcm.cli.error_report import Problem
from kcm.cli.output_file import Sink
from kcm.cli.progress import Advance
from kcm.exit_codes import Exit

WINDOW: Final = 8
"""Pieces on the way at once: 4 MiB of plaintext, and as many messages as a client may send."""

DEADLINE_S: Final = 30.0
"""Seconds for one window, retries included."""

RECORD_MAX: Final = PAYLOAD_MAX + record.OVERHEAD_MAX
"""Bytes read of a file that is one bare record."""


@dataclass(frozen=True, slots=True)
class Target:
    """Whose key, and what else is bound to it."""

    client: Client
    tenant: str
    service: str
    context: bytes


async def encrypt_file(target: Target, source: BinaryIO, sink: Sink, advance: Advance) -> None:
    """Write ``source`` in pieces."""
    file_id = os.urandom(limits.ID_SIZE)
    sink.write(file_format.header(file_id))
    for window in _windows(file_format.plain_pieces(source)):
        result = await target.client.encrypt(
            target.tenant,
            target.service,
            [piece.data for piece in window],
            _contexts(target, file_id, window),
            deadline_s=DEADLINE_S,
        )
        sink.writelines(file_format.frame(sealed) for sealed in result.values)
        advance(sum(len(piece.data) for piece in window))


async def decrypt_file(target: Target, source: BinaryIO, sink: Sink, advance: Advance) -> None:
    """Restore what ``encrypt_file`` wrote, or the payload of one bare record."""
    start = source.read(len(file_format.MAGIC))
    if start == record.MAGIC:
        await _decrypt_record(target, start, source, sink)
        return
    file_id = file_format.read_header(source, start)
    for window in _windows(file_format.records(source)):
        result = await target.client.decrypt(
            target.tenant,
            target.service,
            [piece.data for piece in window],
            _contexts(target, file_id, window),
            deadline_s=DEADLINE_S,
        )
        for index, piece in enumerate(window):
            error = result.error(index)
            if error is not None:
                # A piece that was moved looks like one that was changed: say where.
                raise type(error)(f"piece {piece.index + 1}: {error.detail}")
            _write_plain(sink, result.one(index))
        advance(sum(len(piece.data) for piece in window))


async def encrypt_record(target: Target, source: BinaryIO, sink: Sink) -> None:
    """Write a small file as one bare record, as the SDK does."""
    plain = source.read(PAYLOAD_MAX + 1)
    if len(plain) > PAYLOAD_MAX:
        raise Problem(
            Exit.USAGE,
            "too_large",
            f"one record holds at most {PAYLOAD_MAX} bytes",
            "leave out --record: a file in pieces may have any size",
        )
    result = await target.client.encrypt(
        target.tenant, target.service, [plain], target.context, deadline_s=DEADLINE_S
    )
    sink.write(result.one(0))


async def _decrypt_record(target: Target, start: bytes, source: BinaryIO, sink: Sink) -> None:
    sealed = start + source.read(RECORD_MAX)
    result = await target.client.decrypt(
        target.tenant, target.service, [sealed], target.context, deadline_s=DEADLINE_S
    )
    _write_plain(sink, result.one(0))


def _windows(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    while window := list(islice(pieces, WINDOW)):
        yield window


def _contexts(target: Target, file_id: bytes, window: Sequence[Piece]) -> list[bytes]:
    return [
        piece_context(file_id, piece.index, last=piece.last, user=target.context)
        for piece in window
    ]


def _write_plain(sink: Sink, data: bytes) -> None:
    """Write plaintext; to a terminal only what cannot steer it."""
    if sink.is_terminal and not _is_text(data):
        raise Problem(
            Exit.USAGE,
            "usage",
            "the plaintext is binary and would go to the terminal",
            "name a file with -o FILE, or redirect the output",
        )
    sink.write(data)


def _is_text(data: bytes) -> bool:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\n\t\r" for character in text)
