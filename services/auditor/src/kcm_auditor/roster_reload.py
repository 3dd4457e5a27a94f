"""Whom the Auditor believes: the roster, looked at again before anything is refused.

A statement of an instance that was added to the roster after this process began would look forged,
and what is not believed is not kept. So before an Auditor refuses something it looks whether the
configured file is a newer roster. What travels in its region's stream is taken over as it comes.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from kcm_runtime.roster.store import Rosters
from kcm_schemas.codes import KcmError
from kcm_trust.verify import STATEMENT_MAX, Untrusted, Verifier

log = logging.getLogger(__name__)


class RosterReload:
    """The verifier of the newest roster that was accepted."""

    def __init__(self, rosters: Rosters, path: Path) -> None:
        self._rosters: Final = rosters
        self._path: Final = path
        self._file = _stamp(path)
        self._told = ""
        self._version = rosters.version

    @property
    def verifier(self) -> Verifier:
        """Whom to believe now."""
        return self._rosters.verifier

    def refresh(self) -> bool:
        """Read the roster's file if it is another one; whether somebody else is believed now."""
        stamp = _stamp(self._path)
        if stamp != self._file and self._read():
            self._file = stamp
        before, self._version = self._version, self._rosters.version
        return before != self._version

    def _read(self) -> bool:
        """Whether it is decided; a file that is being written, or a full disk, is tried again."""
        try:
            with self._path.open("rb") as file:
                self._rosters.take(file.read(STATEMENT_MAX + 1))
        except Untrusted as error:
            log.error("the changed roster is not used: %s", error)
        except (OSError, KcmError) as error:
            if type(error).__name__ != self._told:
                self._told = type(error).__name__
                log.error("the changed roster is not used yet: %s", self._told)
            return False
        self._told = ""
        return True


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        info = path.stat()
    except OSError:
        return (0, 0, 0)
    return (info.st_ino, info.st_mtime_ns, info.st_size)
