"""The lowest record of every name that this Core will believe: one line each, never taken back.

A region's broker and second store can be set back together, by a restore or by somebody. What this
Core has once accepted or read it writes down on its own disk, and believes nothing older again.
Lines are appended and synced one by one; a line that was cut off by a crash is ignored, for its
record was not in use yet.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from kcm_bus.config import ConfigError
from kcm_control.registry import Key

Floor = tuple[int, bytes]
"""Revision and digest."""


class Floors:
    """A file of floors by key."""

    def __init__(self, path: Path) -> None:
        """Read the file, which need not exist; raises ``ConfigError`` when it cannot be read."""
        self._path: Final = path
        self._known: dict[Key, Floor] = {}
        try:
            self.fresh: Final = not path.exists()
            text = "" if self.fresh else path.read_text(encoding="ascii")
            whole = text[: text.rfind("\n") + 1]
            if whole != text:
                os.truncate(path, len(whole))  # or the next line would continue the torn one
        except (OSError, UnicodeDecodeError):
            raise ConfigError(
                f"cannot read {path}, which says what the registry was: restore it from a backup, "
                "or remove it and run `kcm registry adopt`"
            ) from None
        for line in whole.splitlines():
            self._read(line)

    def items(self) -> list[tuple[Key, Floor]]:
        """Every key with its floor."""
        return list(self._known.items())

    def raise_to(self, floors: Iterable[tuple[Key, Floor]]) -> None:
        """Believe nothing lower from now on; on disk when this returns. Raises ``OSError``."""
        new = {key: floor for key, floor in floors if self._known.get(key, (0, b"")) < floor}
        if not new:
            return
        lines = (f"{'.'.join(key)} {floor[0]} {floor[1].hex()}\n" for key, floor in new.items())
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._path.open("a", encoding="ascii") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        self._known |= new

    def _read(self, line: str) -> None:
        try:
            key, revision, digest = line.split(" ")
            floor = int(revision), bytes.fromhex(digest)
        except ValueError:
            raise ConfigError(f"{self._path} is damaged: restore it from a backup") from None
        name = tuple(key.split("."))
        self._known[name] = max(floor, self._known.get(name, (0, b"")))
