"""Whole files: split into pieces and processed in order, one window of pieces at a time.

The window bounds the memory for a file of any size. A bad piece ends the command without an output
file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, Final

from kcm_schemas import limits, record

from kcm._internal import file_format
from kcm._internal.batches import PAYLOAD_MAX, BatchResult
from kcm._internal.client import Client
from kcm._internal.context_binding import piece_context
from kcm._internal.file_format import Piece
from kcm._internal.job import Operation
from kcm.cli.error_report import Problem
from kcm.cli.output_file import Sink
from kcm.cli.progress import Advance
from kcm.exit_codes import Exit

WINDOW: Final = 8
"""Pieces in flight at once: 4 MiB of plaintext, and the maximum of messages of a client."""

DEADLINE_S: Final = 30.0
"""Seconds for one window, retries included."""

RECORD_MAX: Final = PAYLOAD_MAX + record.OVERHEAD_MAX
"""Bytes of a file that is a single record."""


@dataclass(frozen=True, slots=True)
class Target:
    """The client, the service key, and the user's context."""

    client: Client
    tenant: str
    service: str
    context: bytes
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext
    """Runs around each request, for example to report that it takes long."""

    async def ask(
        self, operation: Operation, values: Sequence[bytes], contexts: Sequence[bytes] | bytes
    ) -> BatchResult:
        """Encrypt or decrypt values, in one request as far as the sizes allow."""
        ask = self.client.encrypt if operation == "encrypt" else self.client.decrypt
        with self.waiting():
            return await ask(self.tenant, self.service, values, contexts, deadline_s=DEADLINE_S)


async def encrypt_file(target: Target, source: BinaryIO, sink: Sink, advance: Advance) -> None:
    """Encrypt ``source`` in pieces."""
    file_id = os.urandom(limits.ID_SIZE)
    sink.write(file_format.header(file_id))
    for window in _windows(file_format.plain_pieces(source)):
        pieces, contexts = [piece.data for piece in window], _contexts(target, file_id, window)
        result = await target.ask("encrypt", pieces, contexts)
        sink.writelines(file_format.frame(sealed) for sealed in result.values)
        advance(sum(len(piece.data) for piece in window))


async def decrypt_file(target: Target, source: BinaryIO, sink: Sink, advance: Advance) -> None:
    """Decrypt what ``encrypt_file`` wrote, or a single record."""
    start = source.read(len(file_format.MAGIC))
    if start == record.MAGIC:
        await _decrypt_record(target, start, source, sink)
        return
    file_id = file_format.read_header(source, start)
    for window in _windows(file_format.records(source)):
        pieces, contexts = [piece.data for piece in window], _contexts(target, file_id, window)
        result = await target.ask("decrypt", pieces, contexts)
        for index, piece in enumerate(window):
            error = result.error(index)
            if error is not None:
                # A moved piece has the same error as a changed one, so name the position.
                raise type(error)(f"piece {piece.index + 1}: {error.detail}")
            _write_plain(sink, result.one(index))
        advance(sum(len(piece.data) for piece in window))


async def encrypt_record(target: Target, source: BinaryIO, sink: Sink) -> None:
    """Encrypt a small file as a single record, like the SDK."""
    plain = source.read(PAYLOAD_MAX + 1)
    if len(plain) > PAYLOAD_MAX:
        raise Problem(
            Exit.USAGE,
            "too_large",
            f"one record has at most {PAYLOAD_MAX} bytes",
            "leave out --record: a file in pieces can have any size",
        )
    result = await target.ask("encrypt", [plain], target.context)
    sink.write(result.one(0))


async def _decrypt_record(target: Target, start: bytes, source: BinaryIO, sink: Sink) -> None:
    sealed = start + source.read(RECORD_MAX)
    result = await target.ask("decrypt", [sealed], target.context)
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
    """Write plaintext; to a terminal only without control characters."""
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
