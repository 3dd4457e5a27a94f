"""The lowest revision of every name that this Core accepts: one line each, never withdrawn.

A region's broker and second store can be set back together, by a restore or by an attacker. Each
Core writes down on its own disk what it has accepted or read, and accepts nothing older again.
Lines are appended and synced. A line that a crash cut off is ignored, because its entry was not in
use yet. The remains of a failed write are removed before the next line is appended.

The first line states what the file is, and how many of its bytes were on disk at some time. A file
with fewer bytes was cut, by a repair of the file system or by an attacker: it is no baseline, and
no Core starts with it. The number is written after the bytes that it counts, so a crash leaves it
too low and never too high.

A file without any floor that is not in use belongs to a Core that began when nothing was stored.

The existence of the file means that this Core has a baseline of its region's registry. The file
therefore comes into existence as a whole, and only by ``begin``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from kcm_killswitch.model.registry_objects import Key, is_key
from kcm_runtime.config import ConfigError
from kcm_runtime.files.atomic import place, sync_directory

_MAGIC: Final = "kcm-registry-floors 1 "
_DIGITS: Final = 16
_FIRST: Final = len(_MAGIC) + _DIGITS + 1
"""Bytes of the first line."""

_USED: Final = "used"
"""The line that a Core writes when it accepts its first record."""

_OR_REMOVE: Final = (
    "; without one remove it: this Core has no baseline then, and serves once another Core that "
    "has one knows the same, or an operator adopts what is there"
)

Floor = tuple[int, bytes]
"""Revision and digest."""


class Floors:
    """A file of floors by key."""

    def __init__(self, path: Path, sync: Callable[[Path], None] = sync_directory) -> None:
        """Read the file, which need not exist; raises ``ConfigError`` if it cannot be read."""
        self._path: Final = path
        self._sync: Final = sync
        self._named = False
        """Whether the file's name is known to survive a power failure."""
        self._writing: Final = threading.Lock()
        self._known: dict[Key, Floor] = {}
        self._used = False
        try:
            self._fresh = not path.exists()
            text = "" if self._fresh else path.read_bytes().decode("ascii")
            self._whole_at_start(text)
            whole = text[: text.rfind("\n") + 1]
            if whole != text:
                os.truncate(path, len(whole))  # otherwise the next line would continue the torn one
        except (OSError, UnicodeDecodeError):
            raise ConfigError(
                f"cannot read {path}, below which this Core believes no entry: restore it from a "
                f"backup{_OR_REMOVE}"
            ) from None
        self._length = len(whole)
        """Bytes of the file in complete lines."""
        for line in whole[_FIRST:].splitlines():
            self._read(line)

    @property
    def fresh(self) -> bool:
        """Whether there is no file: this Core has no baseline."""
        return self._fresh

    def begin(self, floors: Iterable[tuple[Key, Floor]]) -> None:
        """Make the file with these floors; on disk when this returns.

        Raises ``OSError``; there is no file then, unless it was written completely.
        """
        with self._writing:
            self._make(dict(floors))

    @property
    def unused(self) -> bool:
        """Whether this Core remembers an empty registry and has accepted nothing since."""
        return not (self._fresh or self._known or self._used)

    def use(self) -> None:
        """Record that an entry is accepted now; on disk when this returns. Raises ``OSError``."""
        with self._writing:
            if self.unused:
                self._append(f"{_USED}\n".encode("ascii"))
                self._used = True

    def forget(self) -> None:
        """Remove the file and the baseline. Raises ``OSError``; the baseline is gone even then."""
        with self._writing:
            self._known, self._used, self._fresh = {}, False, True
            self._path.unlink(missing_ok=True)
            self._sync(self._path.parent)

    def items(self) -> list[tuple[Key, Floor]]:
        """Every key with its floor."""
        return list(self._known.items())

    def raise_to(self, floors: Iterable[tuple[Key, Floor]]) -> None:
        """Accept nothing lower from now on; on disk when this returns. Raises ``OSError``.

        Only if there is a file: to write one would state that this Core has a baseline.
        """
        with self._writing:
            if self._fresh:
                raise RuntimeError("floors begin by begin()")
            new = {key: floor for key, floor in floors if self._known.get(key, (0, b"")) < floor}
            if not new:
                return
            try:
                if self._whole():
                    self._append(_lines(new))
                else:
                    self._make(self._known | new)
            except OSError:
                with suppress(OSError):  # otherwise it is done before the next line
                    self._cut()
                raise
            self._known |= new

    def _make(self, known: dict[Key, Floor]) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lines = _lines(known)
        length = _FIRST + len(lines)
        place(self._path, _first(length) + lines, sync=self._sync)
        self._known, self._length = known, length
        self._named, self._fresh = True, False

    def _whole_at_start(self, text: str) -> None:
        """Raise ``ConfigError`` if the file is of another version, or was cut."""
        if self._fresh:
            return
        if not text.startswith(_MAGIC[: len(text)]):
            raise ConfigError(
                f"{self._path}, below which this Core believes no entry, does not begin with its "
                "version: another version wrote it, or its first line was removed; restore it from "
                f"a backup{_OR_REMOVE}"
            )
        count = text[len(_MAGIC) : _FIRST - 1]
        if len(count) < _DIGITS or not count.isdecimal() or int(count) > len(text):
            raise ConfigError(
                f"{self._path}, below which this Core believes no entry, was cut: it has "
                f"{len(text)} bytes, and had more; restore it from a backup{_OR_REMOVE}"
            )

    def _whole(self) -> bool:
        """Whether the file exists with everything that was written.

        A new file that began with the next line would state that nothing came before.
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
            file.write(_first(length))  # what it counts is on disk; a lower number is harmless
        if not self._named:
            self._sync(self._path.parent)
            self._named = True
        self._length = length

    def _cut(self) -> None:
        """Remove the remains of a failed write: the next line would continue them."""
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
