"""Files of a deployment: private, and replaced as a whole."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from kcm_broker.key_files import make_directory
from kcm_runtime.files.atomic import place, placing

from kcm_deployment.errors import DeploymentError

COPY_BYTES_MAX: Final = 1 << 20
"""Maximum bytes of a copied file: a roster of thousands of instances."""


def write_private(path: Path, content: str | bytes) -> None:
    """Replace a file atomically, with mode 0600 from its creation, and flush it to the disk.

    A text is written as UTF-8. Missing directories are created with mode 0700.
    """
    make_directory(path.parent)
    place(path, content.encode() if isinstance(content, str) else content)


def copy_private(source: Path, target: Path) -> None:
    """Replace ``target`` atomically with a copy of mode 0600, and flush it to the disk.

    The kernel copies the bytes, so a key never becomes ``bytes`` here. Raises ``DeploymentError``
    for a file above ``COPY_BYTES_MAX``.
    """
    make_directory(target.parent)
    with source.open("rb", buffering=0) as reading:
        size = os.fstat(reading.fileno()).st_size
        if size > COPY_BYTES_MAX:
            raise DeploymentError(f"{source} is too large for a file of the system")
        with placing(target) as file:
            done = 0
            while done < size:
                sent = os.sendfile(file.fileno(), reading.fileno(), done, size - done)
                if not sent:
                    raise DeploymentError(f"{source} was truncated while it was copied")
                done += sent


def copy_files(target: Path, sources: Mapping[str, Path]) -> None:
    """Copy files into a directory, each under its relative name; see ``copy_private``."""
    for relative, source in sources.items():
        copy_private(source, target / relative)
