"""Whom the Auditor believes: the roster, read again when its file has changed.

A statement of an instance that was added to the roster after this process began would look forged,
and what is not believed is not kept. So before an Auditor refuses something it looks whether there
is a newer roster.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kcm_bus.config import ConfigError
from kcm_trust.verify import Verifier

log = logging.getLogger(__name__)

Load = Callable[[], Verifier]
"""Reads and verifies the roster; raises ``ConfigError``."""


class RosterTrust:
    """The verifier of the newest roster that was accepted."""

    def __init__(self, verifier: Verifier, path: Path, load: Load) -> None:
        self._path: Final = path
        self._load: Final = load
        self._seen = _stamp(path)
        self.verifier = verifier

    def refresh(self) -> bool:
        """Read the roster again if its file is another one; whether there is a new verifier."""
        stamp = _stamp(self._path)
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            self.verifier = self._load()
        except ConfigError as error:
            log.error("the changed roster is not used: %s", error)
            return False
        log.info("roster version %d", self.verifier.roster.version)
        return True


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        info = path.stat()
    except OSError:
        return (0, 0, 0)
    return (info.st_ino, info.st_mtime_ns, info.st_size)
