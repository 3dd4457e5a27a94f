"""The lowest record of every name that this Core will believe: one line each, never taken back.

A region's broker and second store can be set back together, by a restore or by somebody. What this
Core has once accepted or read it writes down on its own disk, and believes nothing older again.
Lines are appended and synced; a line that was cut off by a crash is ignored, for its record was not
in use yet. What a failed write left is cut off before anything is appended to it.

The first line says what the file is, and how many bytes of it were on disk once. One with fewer was
cut, by a repair of the file system or by somebody: it is no memory, and no Core starts on it. The
number is written after what it counts, so a crash leaves it too low and never too high.

A file without any floor, and not in use, is that of a Core that began where nothing was stored.

That the file is there says that this Core has memory of its region's registry. So it begins whole
or not at all, and only by ``begin``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from kcm_killswitch.model.registry import Key, is_key
from kcm_runtime.config import ConfigError
from kcm_runtime.files.atomic import place, sync_directory

_MAGIC: Final = "kcm-registry-floors 1 "
_DIGITS: Final = 16
_FIRST: Final = len(_MAGIC) + _DIGITS + 1
"""Bytes of the first line."""

_USED: Final = "used"
"""The line of a Core that accepts its first record."""

_OR_REMOVE: Final = (
    "; without one remove it: this Core has no memory then, and serves once another Core that has "
    "knows the same, or an operator adopts what is there"
)

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
        self._used = False
        self._headed = True
        """Whether the file has a first line: one that an earlier version wrote has none."""
        try:
            self._fresh = not path.exists()
            text = "" if self._fresh else path.read_bytes().decode("ascii")
            self._whole_at_start(text)
            whole = text[: text.rfind("\n") + 1]
            if whole != text:
                os.truncate(path, len(whole))  # or the next line would continue the torn one
        except (OSError, UnicodeDecodeError):
            raise ConfigError(
                f"cannot read {path}, below which this Core believes no record: restore it from a "
                f"backup{_OR_REMOVE}"
            ) from None
        self._length = len(whole)
        """Bytes of the file that are whole lines."""
        for line in whole[_FIRST if self._headed else 0 :].splitlines():
            self._read(line)

    @property
    def fresh(self) -> bool:
        """Whether there is no file: this Core has no memory."""
        return self._fresh

    def begin(self, floors: Iterable[tuple[Key, Floor]]) -> None:
        """Make the file, with these floors; on disk when this returns.

        Raises ``OSError``; there is no file then, unless everything of it was written.
        """
        with self._writing:
            self._make(dict(floors))

    @property
    def unused(self) -> bool:
        """Whether this Core remembers that there was nothing, and accepted nothing since."""
        return not (self._fresh or self._known or self._used)

    def use(self) -> None:
        """Note that a record is accepted now; on disk when this returns. Raises ``OSError``."""
        with self._writing:
            if self.unused:
                self._append(f"{_USED}\n".encode("ascii"))
                self._used = True

    def forget(self) -> None:
        """Remove the file: no memory is left. Raises ``OSError``; none is left all the same."""
        with self._writing:
            self._known, self._used, self._fresh = {}, False, True
            self._path.unlink(missing_ok=True)
            self._sync(self._path.parent)

    def items(self) -> list[tuple[Key, Floor]]:
        """Every key with its floor."""
        return list(self._known.items())

    def raise_to(self, floors: Iterable[tuple[Key, Floor]]) -> None:
        """Believe nothing lower from now on; on disk when this returns. Raises ``OSError``.

        Only where there is a file: by writing one a Core would say that it has memory.
        """
        with self._writing:
            if self._fresh:
                raise RuntimeError("floors begin by begin()")
            new = {key: floor for key, floor in floors if self._known.get(key, (0, b"")) < floor}
            if not new:
                return
            try:
                if self._headed and self._whole():
                    self._append(_lines(new))
                else:
                    self._make(self._known | new)
            except OSError:
                with suppress(OSError):  # or it is done before the next line
                    self._cut()
                raise
            self._known |= new

    def _make(self, known: dict[Key, Floor]) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lines = _lines(known)
        length = _FIRST + len(lines)
        place(self._path, _first(length) + lines, sync=self._sync)
        self._known, self._length = known, length
        self._named, self._fresh, self._headed = True, False, True

    def _whole_at_start(self, text: str) -> None:
        """Raise ``ConfigError`` for a file that was cut."""
        if self._fresh:
            return
        if not text.startswith(_MAGIC[: len(text)]):
            self._headed = False
            return
        count = text[len(_MAGIC) : _FIRST - 1]
        if len(count) < _DIGITS or not count.isdecimal() or int(count) > len(text):
            raise ConfigError(
                f"{self._path}, below which this Core believes no record, was cut: it has "
                f"{len(text)} bytes, and had more; restore it from a backup{_OR_REMOVE}"
            )

    def _whole(self) -> bool:
        """Whether the file is there with all that was written.

        A new one that began with the next line would say that there was nothing before.
        """
        try:
            return self._path.stat().st_size >= self._length
        except FileNotFoundError:
            return False

    def _append(self, lines: bytes) -> None:
        with self._path.open("ab") as file:
            self._cut()
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
            length = os.fstat(file.fileno()).st_size
        with suppress(OSError), self._path.open("r+b") as file:
            file.write(_first(length))  # what it counts is on disk; a lower number is no harm
        if not self._named:
            self._sync(self._path.parent)
            self._named = True
        self._length = length

    def _cut(self) -> None:
        """Remove what a failed write left: the next line would continue it."""
        if self._whole() and self._path.stat().st_size > self._length:
            os.truncate(self._path, self._length)

    def _read(self, line: str) -> None:
        if line == _USED:
            self._used = True
            return
        try:
            key, revision, digest = line.split(" ")
            floor = int(revision), bytes.fromhex(digest)
            name = tuple(key.split("."))
            if not is_key(name):
                raise ValueError(key)
        except ValueError:
            raise ConfigError(
                f"{self._path} is damaged: restore it from a backup{_OR_REMOVE}"
            ) from None
        self._known[name] = max(floor, self._known.get(name, (0, b"")))


def _first(length: int) -> bytes:
    return f"{_MAGIC}{length:0{_DIGITS}d}\n".encode("ascii")


def _lines(floors: Mapping[Key, Floor]) -> bytes:
    lines = (f"{'.'.join(key)} {floor[0]} {floor[1].hex()}\n" for key, floor in floors.items())
    return "".join(lines).encode("ascii")
