"""Generated configurations. A file that a user has edited is kept.

``generated.json`` in the system's directory has the digests of each generated file: the last one
and the next one. It is written first, so that after a crash between the two writes the file has a
known digest. A file with another digest was edited, and is kept until the user removes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kcm_runtime.files.private_files import write_private

from kcm_devsystem.errors import DevError

FILE: Final = "generated.json"
"""The file's name in the development system's directory."""
BYTES_MAX: Final = 1 << 20
"""Maximum bytes of the file: thousands of configurations."""


class Generated:
    """The configurations of the system in one directory. Use it under the directory's lock."""

    def __init__(self, root: Path, tell: Callable[[str], None]) -> None:
        self._root: Final = root
        self._tell: Final = tell
        self._digests: Final = _load(root / FILE)

    def write(self, path: Path, text: str) -> None:
        """Write a file below the directory, mode 0600, unless a user edited it.

        A file without a known digest is overwritten.
        """
        name, made = str(path.relative_to(self._root)), _digest(text.encode())
        known = self._digests.get(name, [])
        if path.exists():
            found = _digest(path.read_bytes())
            if known and found not in (*known, made):
                self._tell(f"{path} was edited: it is kept (remove it to generate it again)")
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
            f"{path} cannot be parsed", hint="remove it to generate every configuration again"
        ) from None
