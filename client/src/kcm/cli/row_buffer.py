"""Rows that wait until it is known that they may be seen.

Stdout, a pipe or a device shows what is written at once. So that a field's name that is not right
puts no plaintext there, the first rows wait in memory until each field was in one of them.
"""

from __future__ import annotations

from typing import Final

from kcm.cli.output_file import Sink

HELD_MAX: Final = 64 * 1024 * 1024
"""Bytes that wait at most; first rows that are longer and lack a field end the command."""


class Held:
    """Writes through, or keeps what is written until it is released."""

    def __init__(self, sink: Sink) -> None:
        self._sink: Final = sink
        self._waits = sink.at_once
        self._kept: list[bytes] = []
        self._size = 0

    @property
    def is_full(self) -> bool:
        """Whether more waits than may."""
        return self._size > HELD_MAX

    def write(self, data: bytes) -> None:
        """Write a row, now or when it is released."""
        if not self._waits:
            self._sink.write(data)
            return
        self._kept.append(data)
        self._size += len(data)

    def release(self) -> None:
        """Write what waits, and everything that follows at once."""
        self._waits = False
        for data in self._kept:
            self._sink.write(data)
        self._kept.clear()
        self._size = 0
