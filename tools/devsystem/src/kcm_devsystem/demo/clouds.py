"""A cloud's root key for the demonstration, in that cloud's test server on this machine.

The servers belong to the tests of the source tree. They make the same checks as the real ones, and
the vendor's library talks to them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from kcm_devsystem import processes
from kcm_devsystem.errors import DevError
from kcm_devsystem.processes import ReadyFile

CLOUDS: Final = ("awskms", "gcpkms", "azurekv")

KINDS: Final = {
    "awskms": "AWS KMS (a test server on this machine)",
    "azurekv": "Azure Key Vault (a test server on this machine)",
    "gcpkms": "Google Cloud KMS (a test server on this machine)",
    "pkcs11": "an HSM (SoftHSM)",
    "softkey": "files (softkey: development only)",
}
"""The kinds of root keys, as the demonstration names them."""

_SERVERS: Final = "tests.l1.servers"


@dataclass(frozen=True, slots=True)
class Cloud:
    """The root keys of two customers, and the environment for a Core's unsealer."""

    uris: tuple[str, str]
    environment: Mapping[str, str]


def provided(kind: str | None, directory: Path) -> AbstractContextManager[Cloud | None]:
    """Run a cloud's test server during the block, if this kind of root key needs one."""
    return standing(kind, directory / "cloud") if kind in CLOUDS else nullcontext()


@contextmanager
def standing(name: str, directory: Path) -> Iterator[Cloud]:
    """Run a cloud's test server during the block; raises ``DevError``."""
    sys.path.append(str(Path.cwd()))  # not on the path of an installed command
    if find_spec("tests") is None or find_spec(_SERVERS) is None:
        raise DevError(
            f"{name} needs the test servers of the source tree",
            hint=f"in a checkout: make demo ARGS='--l1 {name}'",
        )
    directory.mkdir(parents=True, exist_ok=True)
    process = processes.spawn(
        name,
        [sys.executable, "-m", f"{_SERVERS}.{name}", str(directory)],
        directory / "log",
        {"PATH": os.defpath, "LANG": "C.UTF-8"},
        die_with_parent=True,
    )
    try:
        processes.wait_ready(process, ReadyFile(directory / "uri"))
        uris = ((directory / "uri").read_text().strip(), (directory / "other").read_text().strip())
        yield Cloud(uris, json.loads((directory / "environment").read_text()))
    finally:
        processes.stop([process])
