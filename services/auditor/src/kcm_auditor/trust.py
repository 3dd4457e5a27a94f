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
from kcm_trust.verify import Untrusted, Verifier

log = logging.getLogger(__name__)

Load = Callable[[], Verifier]
"""Reads and verifies the roster; raises ``ConfigError`` or ``Untrusted``."""


class RosterTrust:
    """The verifier of the newest roster that was accepted."""

    def __init__(self, verifier: Verifier, path: Path, load: Load) -> None:
        self._path: Final = path
        self._load: Final = load
        self._seen = _stamp(path)
        self._told = ""
        self.verifier = verifier

    def refresh(self) -> bool:
        """Read the roster again if its file is another one; whether there is a new verifier."""
        stamp = _stamp(self._path)
        if stamp == self._seen:
            return False
        try:
            self.verifier = self._load()
        except Untrusted as error:
            self._seen = stamp  # what is not believed will not be later
            log.error("the changed roster is not used: %s", error)
            return False
        except ConfigError as error:
            # A file that is being written, a full disk: looked at again.
            if str(error) != self._told:
                self._told = str(error)
                log.error("the changed roster is not used yet: %s", error)
            return False
        self._seen, self._told = stamp, ""
        log.info("roster version %d", self.verifier.roster.version)
        return True


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        info = path.stat()
    except OSError:
        return (0, 0, 0)
    return (info.st_ino, info.st_mtime_ns, info.st_size)
