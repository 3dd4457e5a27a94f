"""The Auditor's roster, which is read again before anything is rejected.

A statement of an instance that was added to the roster after the start of this process would look
forged, and rejected statements are not kept. So before an Auditor rejects one, it checks whether
the configured file is a newer roster. Rosters in the region's stream are taken over as they come.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from kcm_runtime.logs import fields
from kcm_runtime.roster.store import Rosters
from kcm_schemas.codes import KcmError
from kcm_trust.verify import STATEMENT_MAX, Untrusted, Verifier

log = logging.getLogger(__name__)


class RosterReload:
    """The verifier by the newest accepted roster."""

    def __init__(self, rosters: Rosters, path: Path) -> None:
        self._rosters: Final = rosters
        self._path: Final = path
        self._file = _stamp(path)
        self._told = ""
        self._version = rosters.version

    @property
    def verifier(self) -> Verifier:
        """The verifier by the roster in force."""
        return self._rosters.verifier

    def refresh(self) -> bool:
        """Read the roster's file if it has changed; returns whether another roster is in force."""
        stamp = _stamp(self._path)
        if stamp != self._file and self._read():
            self._file = stamp
        before, self._version = self._version, self._rosters.version
        return before != self._version

    def _read(self) -> bool:
        """Return whether the file was decided; an unfinished file or a full disk is tried again."""
        try:
            with self._path.open("rb") as file:
                self._rosters.take(file.read(STATEMENT_MAX + 1))
        except Untrusted as error:
            log.error(
                "the changed roster is rejected: %s", error, extra=fields(path=str(self._path))
            )
        except (OSError, KcmError) as error:
            if type(error).__name__ != self._told:
                self._told = type(error).__name__
                log.error(
                    "the changed roster is not used yet: %s",
                    self._told,
                    extra=fields(path=str(self._path)),
                )
            return False
        self._told = ""
        return True


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        info = path.stat()
    except OSError:
        return (0, 0, 0)
    return (info.st_ino, info.st_mtime_ns, info.st_size)
