"""Lifted holds that a page ends: kept on a Core's disk, and not read when it begins.

The page is sixteen bytes of each. The statements are needed when the page does not count any more
(who signed it was removed, or is retired and the root does not list it): then the hold may be in
force again, and its text has to be somewhere. And an operator may ask what an old hold said.
Nothing here is believed before it is verified again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, Protocol

_NAME: Final = "lifted.sqlite3"


class Archive(Protocol):
    """Where statements of lifted holds go. Everything raises ``OSError``."""

    def put(self, statements: Mapping[bytes, bytes]) -> None:
        """Keep statements, all or none, in place of earlier ones; they outlive a power cut."""
        ...

    def get(self, hold_ids: Sequence[bytes]) -> dict[bytes, bytes]:
        """The statements of these holds, as far as they are kept."""
        ...

    def between(self, least: bytes, most: bytes, count: int) -> dict[bytes, bytes]:
        """At most ``count`` statements of holds from ``least`` to ``most``, by id."""
        ...


class HoldArchive:
    """Statements by hold, in one file. Everything raises ``OSError``; any thread may call."""

    def __init__(self, directory: Path) -> None:
        self._path: Final = directory / _NAME

    def put(self, statements: Mapping[bytes, bytes]) -> None:
        """Keep statements, all or none, in place of earlier ones; they outlive a power cut."""
        try:
            with closing(self._open()) as database, database:
                database.executemany(
                    "INSERT OR REPLACE INTO lifted VALUES (?, ?)", statements.items()
                )
        except (sqlite3.Error, TypeError, ValueError) as error:
            raise _trouble(error) from None

    def get(self, hold_ids: Sequence[bytes]) -> dict[bytes, bytes]:
        """The statements of these holds, as far as they are kept."""
        found: dict[bytes, bytes] = {}
        if not self._path.exists():
            return found
        try:
            with closing(self._open()) as database:
                for one in hold_ids:
                    row = database.execute("SELECT raw FROM lifted WHERE id = ?", (one,))
                    found.update((one, raw) for (raw,) in row)
        except (sqlite3.Error, TypeError, ValueError) as error:
            raise _trouble(error) from None
        return found

    def between(self, least: bytes, most: bytes, count: int) -> dict[bytes, bytes]:
        """At most ``count`` statements of holds from ``least`` to ``most``, by id."""
        if not self._path.exists():
            return {}
        query = "SELECT id, raw FROM lifted WHERE id >= ? AND id <= ? ORDER BY id LIMIT ?"
        try:
            with closing(self._open()) as database:
                return dict(database.execute(query, (least, most, count)))
        except (sqlite3.Error, TypeError, ValueError) as error:
            raise _trouble(error) from None

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path)
        try:
            database.execute("PRAGMA journal_mode = TRUNCATE")
            database.execute("PRAGMA synchronous = FULL")
            database.execute(
                "CREATE TABLE IF NOT EXISTS lifted"
                " (id BLOB PRIMARY KEY, raw BLOB NOT NULL) WITHOUT ROWID"
            )
        except sqlite3.Error:
            database.close()
            raise
        return database


def _trouble(error: Exception) -> OSError:
    """The text of an error of the library names no content."""
    return OSError(f"the archive of lifted holds: {error}")
