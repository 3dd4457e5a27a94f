"""A buffer for rows until they may become visible.

Bytes to stdout, a pipe or a device are visible at once. A wrong field name must not put plaintext
there, so the first rows wait in memory until each field was in one of them.
"""

from __future__ import annotations

from typing import Final

from kcm.cli.output_file import Sink

HELD_MAX: Final = 64 * 1024 * 1024
"""Maximum bytes in the buffer. If the first rows are longer and lack a field, the command ends."""


class Held:
    """Writes rows through, or keeps them until the release."""

    def __init__(self, sink: Sink) -> None:
        self._sink: Final = sink
        self._waits = sink.at_once
        self._kept: list[bytes] = []
        self._size = 0

    @property
    def is_full(self) -> bool:
        """Whether the buffer exceeds its maximum."""
        return self._size > HELD_MAX

    def write(self, data: bytes) -> None:
        """Write a row, now or at the release."""
        if not self._waits:
            self._sink.write(data)
            return
        self._kept.append(data)
        self._size += len(data)

    def release(self) -> None:
        """Write the rows in the buffer; later rows are written at once."""
        self._waits = False
        for data in self._kept:
            self._sink.write(data)
        self._kept.clear()
        self._size = 0
