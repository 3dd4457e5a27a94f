"""Root keys (L1) for development: in SoftHSM if it is installed, else in a file.

SoftHSM's module is loaded only in a separate process, for which this file is the script.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from kcm_runtime.files.atomic import place, sync_directory
from kcm_runtime.files.private_files import write_private

from kcm_devsystem.errors import DevError
from kcm_devsystem.files import password

MODULES: Final = (
    Path("/usr/lib/softhsm/libsofthsm2.so"),
    Path("/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"),
    Path("/usr/lib64/softhsm/libsofthsm.so"),
    Path("/usr/local/lib/softhsm/libsofthsm2.so"),
)
"""The paths of the module in Linux distributions."""

ALLOWED: Final = "KCM_L1_MODULES"
"""The variable that lists the modules that may be loaded."""

LABEL: Final = "kcm-dev"
"""The label of a development system's SoftHSM token."""

SECONDS_MAX: Final = 60
"""Maximum seconds of a SoftHSM tool."""

_NAMEABLE: Final = re.compile(r"(?:/[A-Za-z0-9._@+=,~-]+)+")
"""A directory that the providers of root keys accept in a URI."""


@dataclass(frozen=True, slots=True)
class RootKeys:
    """The directory of a development system's root keys."""

    root: Path

    @property
    def _hsm(self) -> Path:
        return self.root / "l1" / "softhsm"

    @property
    def kind(self) -> str:
        """``pkcs11`` with SoftHSM, ``softkey`` without."""
        return "pkcs11" if module() and shutil.which("softhsm2-util") else "softkey"

    @property
    def environment(self) -> dict[str, str]:
        """The variables for an unsealer to reach the keys, and the shell's list of modules."""
        modules = [os.environ[ALLOWED]] if ALLOWED in os.environ else []
        if self.kind != "pkcs11":
            return {ALLOWED: modules[0]} if modules else {}
        modules.append(str(module()))
        return {**self.environment_of(self.kind), ALLOWED: ":".join(modules)}

    def environment_of(self, uri: str) -> dict[str, str]:
        """Return the variables that the key of this URI needs; none for a softkey."""
        of_hsm = {"SOFTHSM2_CONF": str(self._conf)}
        return of_hsm if uri.partition(":")[0] == "pkcs11" else {}

    def prepare(self) -> None:
        """Create the token if SoftHSM is installed and the token is missing."""
        if self.kind != "pkcs11" or self._conf.exists():
            return
        tokens = self._hsm / "tokens"
        if not tokens.exists():
            self._make_token(tokens)
        write_private(self._conf, _configuration(tokens))

    def _make_token(self, tokens: Path) -> None:
        """Create the token under another name first.

        After an interruption, an incomplete token would have the same label, but no PIN.
        """
        fresh = self._hsm / "tokens.new"
        if fresh.exists():
            shutil.rmtree(fresh)
        fresh.mkdir(mode=0o700, parents=True)
        conf = self._hsm / "softhsm2.conf.new"
        write_private(conf, _configuration(fresh))
        pin, so_pin = password(self._hsm / "pin"), secrets.token_urlsafe(16)
        tool = shutil.which("softhsm2-util") or "softhsm2-util"
        self._run(
            [tool, "--init-token", "--free", "--label", LABEL, "--so-pin", so_pin, "--pin", pin],
            conf,
        )
        fresh.rename(tokens)
        sync_directory(self._hsm)
        conf.unlink()

    def create(self, name: str, kind: str | None = None) -> str:
        """Create a root key and return its URI. An existing key of this name is kept.

        Raises ``DevError``, also for a directory that a URI cannot name.
        """
        if not _NAMEABLE.fullmatch(str(self.root)):
            raise DevError(
                f"the URI of a key cannot name {self.root}",
                hint="create the system in a directory of a-z, A-Z, 0-9 and ._@+=,~- (and /)",
            )
        kind = kind or self.kind
        if kind == "softkey":
            return f"softkey:{self._softkey(name)}"
        found = module()
        if found is None or self.kind != "pkcs11":
            raise DevError(
                "SoftHSM is not installed", hint="apt-get install softhsm2, or give --kind softkey"
            )
        self.prepare()
        self._run([sys.executable, __file__, str(found), name, str(self._hsm / "pin")])
        return (
            f"pkcs11:token={LABEL};object={quote(name, safe='')};type=secret-key"
            f"?module-path={quote(str(found))}&pin-source=file:{quote(str(self._hsm / 'pin'))}"
        )

    def _softkey(self, name: str) -> Path:
        directory = self.root / "l1" / name
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (directory / "key").exists():
            place(directory / "state", b"enabled\n")
            place(directory / "key", os.urandom(32), replace=False)
        return directory

    @property
    def _conf(self) -> Path:
        return self._hsm / "softhsm2.conf"

    def _run(self, argv: list[str], conf: Path | None = None) -> None:
        done = subprocess.run(
            argv,
            env={"SOFTHSM2_CONF": str(conf or self._conf), "PATH": os.defpath},
            capture_output=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        if done.returncode:
            raise DevError(f"SoftHSM did not create a key: {done.stderr.decode(errors='replace')}")


def module() -> Path | None:
    """Return SoftHSM's PKCS#11 module, or ``None`` if it is not installed."""
    return next((path for path in MODULES if path.exists()), None)


def _configuration(tokens: Path) -> str:
    return f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n"


def _make_key(path: str, label: str, pin_file: str) -> None:
    """Create an AES key in the token, unless it exists."""
    import pkcs11  # noqa: PLC0415 - only this script's process loads an HSM's module

    token = pkcs11.lib(path).get_token(token_label=LABEL)
    with token.open(rw=True, user_pin=Path(pin_file).read_text().strip()) as session:
        known = session.get_objects(
            {
                pkcs11.Attribute.LABEL: label,
                pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY,
            }
        )
        if next(iter(known), None) is None:
            session.generate_key(
                pkcs11.KeyType.AES,
                256,
                label=label,
                id=label.encode(),
                store=True,
                template={
                    pkcs11.Attribute.SENSITIVE: True,
                    pkcs11.Attribute.EXTRACTABLE: False,
                },
            )


if __name__ == "__main__":
    _make_key(*sys.argv[1:])
