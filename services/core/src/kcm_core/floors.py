"""The lowest record of every name that this Core will believe: one line each, never taken back.

A region's broker and second store can be set back together, by a restore or by somebody. What this
Core has once accepted or read it writes down on its own disk, and believes nothing older again.
Lines are appended and synced; a line that was cut off by a crash is ignored, for its record was not
in use yet. What a failed write left is cut off before anything is appended to it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from kcm_bus.config import ConfigError
from kcm_bus.disk import sync_directory
from kcm_control.registry import Key, is_key

Floor = tuple[int, bytes]
"""Revision and digest."""


class Floors:
    """A file of floors by key."""

    def __init__(self, path: Path, sync: Callable[[Path], None] = sync_directory) -> None:
        """Read the file, which need not exist; raises ``ConfigError`` when it cannot be read."""
        self._path: Final = path
        self._sync: Final = sync
        self._named = False
        """Whether the file's name is known to outlive a power cut."""
        self._writing: Final = threading.Lock()
        self._known: dict[Key, Floor] = {}
        try:
            self.fresh: Final = not path.exists()
            text = "" if self.fresh else path.read_bytes().decode("ascii")
            whole = text[: text.rfind("\n") + 1]
            if whole != text:
                os.truncate(path, len(whole))  # or the next line would continue the torn one
        except (OSError, UnicodeDecodeError):
            raise ConfigError(
                f"cannot read {path}, below which this Core believes no record: restore it from a "
                "backup; only while the second key store is known to be whole, remove it instead"
            ) from None
        self._length = len(whole)
        """Bytes of the file that are whole lines."""
        for line in whole.splitlines():
            self._read(line)

    def items(self) -> list[tuple[Key, Floor]]:
        """Every key with its floor."""
        return list(self._known.items())

    def raise_to(self, floors: Iterable[tuple[Key, Floor]]) -> None:
        """Believe nothing lower from now on; on disk when this returns. Raises ``OSError``."""
        with self._writing:
            new = {key: floor for key, floor in floors if self._known.get(key, (0, b"")) < floor}
            if not new:
                return
            lines = (f"{'.'.join(key)} {floor[0]} {floor[1].hex()}\n" for key, floor in new.items())
            try:
                self._append("".join(lines).encode("ascii"))
            except OSError:
                with suppress(OSError):  # or it is done before the next line
                    self._cut()
                raise
            self._known |= new

    def _append(self, lines: bytes) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            self._cut()
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
            length = os.fstat(file.fileno()).st_size
        if not self._named:
            self._sync(self._path.parent)
            self._named = True
        self._length = length

    def _cut(self) -> None:
        """Remove what a failed write left: the next line would continue it."""
        if self._path.stat().st_size > self._length:
            os.truncate(self._path, self._length)

    def _read(self, line: str) -> None:
        try:
            key, revision, digest = line.split(" ")
            floor = int(revision), bytes.fromhex(digest)
            name = tuple(key.split("."))
            if not is_key(name):
                raise ValueError(key)
        except ValueError:
            raise ConfigError(f"{self._path} is damaged: restore it from a backup") from None
        self._known[name] = max(floor, self._known.get(name, (0, b"")))
