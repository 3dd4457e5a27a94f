"""The highest roster that this client has seen: protection against a rollback.

An older roster can return: the context's file may be replaced, or a region restored together with
its broker. The client therefore stores every accepted roster beside the file, in ``<roster>.seen``,
one for each operator root. Concurrent processes lock the directory, and the highest roster stays.
If the roster cannot be stored, the client still uses it and logs the failure, because a full disk
must not prevent a kill.
"""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final

from kcm_runtime.config import ConfigError
from kcm_runtime.roster.store import RosterFiles
from kcm_schemas.roster import Roster
from kcm_trust.roster import follows
from kcm_trust.verify import Untrusted, verify_roster

log = logging.getLogger(__name__)


class SeenRoster:
    """The memory of one context."""

    def __init__(self, roster: Path, root_public: bytes) -> None:
        """``roster`` is the context's file."""
        name = sha256(root_public).hexdigest()[:16]
        self.directory: Final = roster.with_name(f"{roster.name}.seen") / name
        self._files: Final = RosterFiles(self.directory)
        self._root: Final = root_public

    def highest(self, raw: bytes, roster: Roster) -> tuple[bytes, Roster]:
        """Return the highest of this roster and those seen before, and store it.

        Raises ``Untrusted`` if neither may replace the other, and ``ConfigError`` if the stored
        roster is damaged. The client must not continue as if it had seen no roster.
        """
        known = self._read()
        if known is not None and known[1].version > roster.version:
            follows(roster, known[1])
            log.warning(
                "the roster has version %d, but version %d was seen before: using that one",
                roster.version,
                known[1].version,
            )
            return known
        if known is None or known[0] != raw:
            if known is not None:
                follows(known[1], roster)
            self._keep(raw, roster)
        return raw, roster

    def _keep(self, raw: bytes, roster: Roster) -> None:
        try:
            with self._alone():
                known = self._read()
                if known is None or known[1].version < roster.version:
                    self._files.write(raw)
        except OSError as error:
            log.critical("cannot keep the roster in %s: %s", self.directory, error.strerror)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.directory / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _read(self) -> tuple[bytes, Roster] | None:
        raw = self._files.read()
        if raw is None:
            return None
        try:
            return raw, verify_roster(raw, self._root, 0)
        except Untrusted as error:
            raise ConfigError(
                f"{self.directory}, which stores the last roster seen, is damaged: {error}"
            ) from None
