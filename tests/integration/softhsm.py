"""A SoftHSM token in a temporary directory, with keys that a test can disable and destroy.

SoftHSM reads its configuration once in a process, and PKCS#11 modules have no business in the
process of the tests: everything that touches the token runs this file as a script, in a process of
its own with an environment of its own.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

MODULE: Final = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN: Final = "4711-test"
SO_PIN: Final = "so-4711-test"
TOKEN: Final = "kcm test; token"
"""A label with what a URI must encode."""


@dataclass(frozen=True, slots=True)
class SoftHsm:
    """One token; ``environment`` is what the unsealer has to be given."""

    directory: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "SOFTHSM2_CONF": str(self.directory / "softhsm2.conf"),
            "KCM_L1_MODULES": str(MODULE),
        }

    @property
    def pin_file(self) -> Path:
        return self.directory / "pin"

    def uri(self, label: str, *, pin_source: Path | None = None, extra: str = "") -> str:
        """A URI of the key with this label; ``extra`` is put between path and query."""
        return (
            f"pkcs11:token={quote(TOKEN, safe='')};object={quote(label, safe='')}{extra}"
            f"?module-path={MODULE.resolve()}&pin-source=file:{pin_source or self.pin_file}"
        )

    def run(self, action: str, label: str) -> None:
        """Run one of the actions at the end of this file on the key with this label."""
        subprocess.run(
            [sys.executable, __file__, action, label],
            env=self.environment,
            check=True,
            capture_output=True,
            timeout=60,
        )

    def tokens(self) -> Path:
        """The directory that holds the token: rename it, and the HSM is unplugged."""
        return self.directory / "tokens"


def make(directory: Path) -> SoftHsm:
    """Make a token without keys; AssertionError if SoftHSM is not installed."""
    assert MODULE.exists(), "SoftHSM is missing: apt-get install softhsm2"
    hsm = SoftHsm(directory)
    hsm.tokens().mkdir(parents=True)
    conf = f"directories.tokendir = {hsm.tokens()}\nobjectstore.backend = file\nlog.level = ERROR\n"
    (directory / "softhsm2.conf").write_text(conf)
    hsm.pin_file.write_text(f"{PIN}\n")
    hsm.pin_file.chmod(0o600)
    command = ["softhsm2-util", "--init-token", "--free", "--label", TOKEN]
    subprocess.run(
        [*command, "--so-pin", SO_PIN, "--pin", PIN],
        env=hsm.environment | {"PATH": "/usr/bin:/bin"},
        check=True,
        capture_output=True,
        timeout=60,
    )
    return hsm


def _main(action: str, label: str) -> None:
    import pkcs11
    from pkcs11 import Attribute, KeyType, ObjectClass

    token = pkcs11.lib(str(MODULE)).get_token(token_label=TOKEN)
    with token.open(rw=True, user_pin=PIN) as session:

        def found(kind: ObjectClass) -> Any:
            return session.get_key(object_class=kind, label=label)

        match action:
            case "create-aes":
                session.generate_key(
                    KeyType.AES, 256, label=label, id=label.encode(), store=True,
                    template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
                )  # fmt: skip
            case "create-extractable":
                session.generate_key(
                    KeyType.AES, 256, label=label, id=label.encode(), store=True,
                    template={Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True},
                )  # fmt: skip
            case "create-128":
                session.generate_key(
                    KeyType.AES, 128, label=label, id=label.encode(), store=True,
                    template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
                )  # fmt: skip
            case "import":
                session.create_object({
                    Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.KEY_TYPE: KeyType.AES,
                    Attribute.VALUE: bytes(32), Attribute.LABEL: label, Attribute.TOKEN: True,
                    Attribute.ID: label.encode(), Attribute.PRIVATE: True,
                    Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False,
                    Attribute.ENCRYPT: True, Attribute.DECRYPT: True,
                })  # fmt: skip
            case "create-rsa-3072":
                session.generate_keypair(
                    KeyType.RSA, 3072, label=label, id=label.encode(), store=True
                )
            case "create-rsa":
                session.generate_keypair(
                    KeyType.RSA, 2048, label=label, id=label.encode(), store=True
                )
            case "create-des":
                session.generate_key(KeyType.DES3, label=label, id=label.encode(), store=True)
            case "disable" | "enable":
                found(ObjectClass.SECRET_KEY)[Attribute.DECRYPT] = action == "enable"
            case "disable-rsa":
                found(ObjectClass.PRIVATE_KEY)[Attribute.DECRYPT] = False
            case "destroy":
                found(ObjectClass.SECRET_KEY).destroy()
            case "destroy-public":
                found(ObjectClass.PUBLIC_KEY).destroy()
            case _:
                raise SystemExit(f"unknown action {action}")


if __name__ == "__main__":
    _main(*sys.argv[1:])
