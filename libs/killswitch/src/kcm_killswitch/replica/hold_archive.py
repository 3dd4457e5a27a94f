"""The archive of lifted holds that a page has ended: on a Core's disk, not read at its start.

A page has sixteen bytes for each hold. The full statements are needed when the page does not count
any more, because its signer was removed, or is retired and not endorsed: the hold may then be in
force again, and its statement must be available. An operator may also ask what an old hold
contained. Every statement from the archive is verified again before it counts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, Protocol

_NAME: Final = "lifted.sqlite3"


class Archive(Protocol):
    """The archive of statements of lifted holds. Every method raises ``OSError``."""

    def put(self, statements: Mapping[bytes, bytes]) -> None:
        """Store statements, all or none, replacing earlier ones; they are durable on return."""
        ...

    def get(self, hold_ids: Sequence[bytes]) -> dict[bytes, bytes]:
        """The statements of these holds, for those that are stored."""
        ...

    def between(self, least: bytes, most: bytes, count: int) -> dict[bytes, bytes]:
        """At most ``count`` statements of holds from ``least`` to ``most``, by id."""
        ...


class HoldArchive:
    """Statements by hold, in one file. Every method raises ``OSError``; thread-safe."""

    def __init__(self, directory: Path) -> None:
        self._path: Final = directory / _NAME

    def put(self, statements: Mapping[bytes, bytes]) -> None:
        """Store statements, all or none, replacing earlier ones; they are durable on return."""
        try:
            with closing(self._open()) as database, database:
                database.executemany(
                    "INSERT OR REPLACE INTO lifted VALUES (?, ?)", statements.items()
                )
        except (sqlite3.Error, TypeError, ValueError) as error:
            raise _trouble(error) from None

    def get(self, hold_ids: Sequence[bytes]) -> dict[bytes, bytes]:
        """The statements of these holds, for those that are stored."""
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
    """Convert an error of the database library to its name, such as ``SQLITE_FULL``."""
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return OSError(f"the archive of lifted holds: {name}")
