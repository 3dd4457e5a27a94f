"""Directories and files that only their owner may read, each replaced as a whole."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from kcm_runtime.files.atomic import place, placing
from kcm_runtime.files.secret_file import SecretFileError

COPY_BYTES_MAX: Final = 1 << 20
"""Maximum bytes of a copied file: a roster of thousands of instances."""


def make_directory(path: Path) -> None:
    """Create a directory and its missing parents with mode 0700."""
    if not path.is_dir():
        make_directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def write_private(path: Path, content: str | bytes) -> None:
    """Replace a file atomically, with mode 0600 from its creation, and flush it to the disk.

    A text is written as UTF-8. Missing directories are created with mode 0700.
    """
    make_directory(path.parent)
    place(path, content.encode() if isinstance(content, str) else content)


def copy_private(source: Path, target: Path) -> None:
    """Replace ``target`` atomically with a copy of mode 0600, and flush it to the disk.

    The kernel copies the bytes, so a key never becomes ``bytes`` here. Raises ``SecretFileError``
    for a file above ``COPY_BYTES_MAX``.
    """
    make_directory(target.parent)
    with source.open("rb", buffering=0) as reading:
        size = os.fstat(reading.fileno()).st_size
        if size > COPY_BYTES_MAX:
            raise SecretFileError(f"{source} is too large for a file of the system")
        with placing(target) as file:
            done = 0
            while done < size:
                sent = os.sendfile(file.fileno(), reading.fileno(), done, size - done)
                if not sent:
                    raise SecretFileError(f"{source} was truncated while it was copied")
                done += sent


def copy_files(target: Path, sources: Mapping[str, Path]) -> None:
    """Copy files into a directory, each under its relative name; see ``copy_private``."""
    for relative, source in sources.items():
        copy_private(source, target / relative)
