"""Root keys (L1) for development: in SoftHSM where it is installed, else in a file.

SoftHSM's module is loaded only in a process of its own, which this file is as a script.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from kcm_crypto.placing import naming, placing

from kcm.dev.errors import DevError
from kcm.dev.files import password, write_private

MODULES: Final = (
    Path("/usr/lib/softhsm/libsofthsm2.so"),
    Path("/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"),
    Path("/usr/lib64/softhsm/libsofthsm.so"),
    Path("/usr/local/lib/softhsm/libsofthsm2.so"),
)
"""Where distributions put the module."""

LABEL: Final = "kcm-dev"
"""The label of the SoftHSM token that a development system makes."""

SECONDS_MAX: Final = 60
"""Seconds that a SoftHSM tool may take."""


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
        """What an unsealer needs to reach the keys."""
        return {"SOFTHSM2_CONF": str(self._hsm / "softhsm2.conf")} if self.kind == "pkcs11" else {}

    def prepare(self) -> None:
        """Make the token, where there is SoftHSM and it is not there yet."""
        if self.kind == "pkcs11" and not (self._hsm / "softhsm2.conf").exists():
            tokens = self._hsm / "tokens"
            tokens.mkdir(mode=0o700, parents=True, exist_ok=True)
            conf = (
                f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n"
            )
            write_private(self._hsm / "softhsm2.conf", conf)
            pin, so_pin = password(self._hsm / "pin"), secrets.token_urlsafe(16)
            tool = shutil.which("softhsm2-util") or "softhsm2-util"
            self._run(
                [tool, "--init-token", "--free", "--label", LABEL, "--so-pin", so_pin, "--pin", pin]
            )

    def create(self, name: str, kind: str | None = None) -> str:
        """Make a root key and return its URI; an existing one of that name is kept."""
        kind = kind or self.kind
        if kind == "softkey":
            return f"softkey:{self._softkey(name)}"
        found = module()
        if found is None:
            raise DevError("SoftHSM is not installed: apt-get install softhsm2, or use a softkey")
        self.prepare()
        self._run([sys.executable, __file__, str(found), name, str(self._hsm / "pin")])
        return (
            f"pkcs11:token={LABEL};object={quote(name, safe='')};type=secret-key"
            f"?module-path={found}&pin-source=file:{self._hsm / 'pin'}"
        )

    def _softkey(self, name: str) -> Path:
        directory = self.root / "l1" / name
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (directory / "key").exists():
            with naming(directory / "state"), placing(directory / "state", private=False) as file:
                file.write(b"enabled\n")
            with naming(directory / "key"), placing(directory / "key", replace=False) as file:
                file.write(os.urandom(32))
        return directory

    def _run(self, argv: list[str]) -> None:
        done = subprocess.run(
            argv,
            env=self.environment | {"PATH": os.defpath},
            capture_output=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        if done.returncode:
            raise DevError(f"SoftHSM did not make a key: {done.stderr.decode(errors='replace')}")


def module() -> Path | None:
    """SoftHSM's PKCS#11 module, where it is installed."""
    return next((path for path in MODULES if path.exists()), None)


def _make_key(path: str, label: str, pin_file: str) -> None:
    """Make an AES key in the token, unless it is there."""
    import pkcs11  # noqa: PLC0415 - only this script's own process loads an HSM's module

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
