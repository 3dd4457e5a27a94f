"""Configurations that are made, and what somebody changed in them by hand: that is kept.

``generated.json`` in the system's directory has the digest of each file as it was made last, and as
it is about to be made: it is written first, so that a crash between the two writes leaves a file
that is known in either way. A file with another digest is somebody's own from then on, until they
remove it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kcm_devsystem.errors import DevError
from kcm_devsystem.files import write_private

FILE: Final = "generated.json"
"""Its name in the development system's directory."""
BYTES_MAX: Final = 1 << 20
"""Bytes in the file: some thousand configurations."""


class Generated:
    """The configurations of the system in one directory; used under the directory's lock."""

    def __init__(self, root: Path, tell: Callable[[str], None]) -> None:
        self._root: Final = root
        self._tell: Final = tell
        self._digests: Final = _load(root / FILE)

    def write(self, path: Path, text: str) -> None:
        """Make a file below the directory anew, mode 0600, unless somebody edited it.

        A file of which no digest is known is overwritten: it is of a time before digests.
        """
        name, made = str(path.relative_to(self._root)), _digest(text.encode())
        known = self._digests.get(name, [])
        if path.exists():
            found = _digest(path.read_bytes())
            if known and found not in (*known, made):
                self._tell(f"{path} was edited: it is kept (remove it, and it is made anew)")
                return
            if found == made == (known or [""])[0]:
                return
            known = [found]
        self._digests[name] = list(dict.fromkeys([made, *known]))
        write_private(self._root / FILE, json.dumps(self._digests, indent=2) + "\n")
        write_private(path, text)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _load(path: Path) -> dict[str, list[str]]:
    try:
        with path.open("rb") as file:
            said = json.loads(file.read(BYTES_MAX + 1))
        return {str(name): [str(one) for one in digests] for name, digests in said.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise DevError(
            f"{path} is not readable: remove it, and every configuration is made anew"
        ) from None
