"""Files that hold secrets or decide what is acted upon: private from their first instant."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

from kcm_runtime.files.atomic import place

from kcm_devsystem.errors import DevError

PASSWORD_BYTES: Final = 32
"""Random bytes in a broker password; it is as long as a key, for nobody has to type it."""
PASSWORD_CHARACTERS_MAX: Final = 256
"""A password file that is longer was not written here."""


def write_private(path: Path, content: str | bytes) -> None:
    """Replace a file atomically, mode 0600 from the first instant, and make it last.

    A text is written as UTF-8. Missing directories are made for their owner alone.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    place(path, content.encode() if isinstance(content, str) else content)


def password(path: Path) -> str:
    """Read the password that is kept in a file, or make one and keep it there.

    Raises ``DevError`` when others may read the file, or when it holds no password.
    """
    try:
        with path.open("r", encoding="ascii") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise DevError(f"{path} can be read by others; it holds a password")
            text = file.read(PASSWORD_CHARACTERS_MAX + 1).strip()
    except FileNotFoundError:
        text = secrets.token_urlsafe(PASSWORD_BYTES)
        write_private(path, text + "\n")
        return text
    except ValueError:
        text = ""
    if not 0 < len(text) <= PASSWORD_CHARACTERS_MAX:
        raise DevError(f"{path} holds no password")
    return text
