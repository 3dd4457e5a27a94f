"""The passwords of a development system's tokens."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

from kcm_runtime.files.private_files import write_private

from kcm_devsystem.errors import DevError

PASSWORD_BYTES: Final = 32
"""Random bytes of a password. It is never typed, so it is as long as a key."""
PASSWORD_CHARACTERS_MAX: Final = 256
"""Maximum characters of a password file that this module wrote."""


def password(path: Path) -> str:
    """Read the password in a file, or create a new one there.

    Raises ``DevError`` if other users can read the file, or if it contains no password.
    """
    try:
        with path.open("r", encoding="ascii") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise DevError(
                    f"{path} contains a password, but other users can read it",
                    hint=f"chmod 600 {path}, and use a new password if another user may have it",
                )
            text = file.read(PASSWORD_CHARACTERS_MAX + 1).strip()
    except FileNotFoundError:
        text = secrets.token_urlsafe(PASSWORD_BYTES)
        write_private(path, text + "\n")
        return text
    except ValueError:
        text = ""
    if not 0 < len(text) <= PASSWORD_CHARACTERS_MAX:
        raise DevError(
            f"{path} contains no password", hint="remove it; `kcm dev up` makes a new password"
        )
    return text
