"""Files that hold secrets or decide what is acted upon: private from their first instant."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

from kcm_crypto.placing import naming

from kcm.dev.errors import DevError

PASSWORD_BYTES: Final = 32
"""Random bytes in a broker password; it is as long as a key, for nobody has to type it."""
PASSWORD_CHARACTERS_MAX: Final = 256
"""A password file that is longer was not written here."""


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically, mode 0600 from the first instant, and make it last.

    Missing directories are made for their owner alone.
    """
    with naming(path):
        _write_private(path, text)


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(directory: Path) -> None:
    """Make the names in a directory outlive a power cut."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
