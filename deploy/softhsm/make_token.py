# noqa: INP001 - a script that an image runs, in no package
"""Make a SoftHSM token with a root key in it: the customer's HSM, for development.

``python make_token.py DIRECTORY [MODULE]`` initialises a token ``kcm`` below the directory that
``SOFTHSM2_CONF`` names, writes its user PIN to ``DIRECTORY/pin`` (mode 0600) and makes an RSA-3072
pair ``root`` whose private half can decrypt and never be read. What exists already is kept.

It is a pair, since the socket at which the token is served carries RSA-OAEP and not AES-GCM
(p11-kit 0.24).

``softhsm2-util`` takes PINs from a terminal or from its command line, where every process can read
them; so the three calls that it would make are made here.
"""

from __future__ import annotations

import ctypes
import secrets
import sys
from pathlib import Path
from typing import Final

import pkcs11
from kcm_runtime.files.atomic import place

TOKEN: Final = "kcm"  # noqa: S105 - a label
"""The token's label."""
KEY: Final = "root"
"""The label of both halves."""
KEY_BITS: Final = 3072
"""What a link of model ``hyok`` asks for at least."""
MODULE: Final = "/usr/lib/softhsm/libsofthsm2.so"
"""Where Debian installs SoftHSM."""
SLOTS_MAX: Final = 16
"""Slots looked at for a free one; SoftHSM shows one more than it has tokens."""

_SO, _USER_SESSION = 0, 0x6
_Ulong = ctypes.c_ulong


def initialise(module: str, so_pin: bytes, pin: bytes) -> None:
    """Initialise the free slot as a token and give it its user PIN. Raises ``RuntimeError``."""
    library = ctypes.CDLL(module)

    def call(name: str, *arguments: object) -> None:
        code = getattr(library, name)(*arguments)
        if code != 0:
            raise RuntimeError(f"{name} failed with 0x{code & 0xFFFFFFFF:x}")

    call("C_Initialize", None)
    try:
        slots, count = (_Ulong * SLOTS_MAX)(), _Ulong(SLOTS_MAX)
        call("C_GetSlotList", ctypes.c_ubyte(0), slots, ctypes.byref(count))
        slot = _Ulong(slots[count.value - 1])  # SoftHSM's last slot is the free one
        call("C_InitToken", slot, so_pin, _Ulong(len(so_pin)), TOKEN.encode().ljust(32))
        session = _Ulong()
        call("C_OpenSession", slot, _Ulong(_USER_SESSION), None, None, ctypes.byref(session))
        call("C_Login", session, _Ulong(_SO), so_pin, _Ulong(len(so_pin)))
        call("C_InitPIN", session, pin, _Ulong(len(pin)))
        call("C_CloseSession", session)
    finally:
        call("C_Finalize", None)


def make_key(module: str, pin: str) -> None:
    """Make the pair unless there is one."""
    token = pkcs11.lib(module).get_token(token_label=TOKEN)
    with token.open(rw=True, user_pin=pin) as session:
        if any(session.get_objects({pkcs11.Attribute.LABEL: KEY})):
            return
        session.generate_keypair(
            pkcs11.KeyType.RSA,
            KEY_BITS,
            label=KEY,
            id=b"\x01",
            store=True,
            capabilities=pkcs11.MechanismFlag.ENCRYPT | pkcs11.MechanismFlag.DECRYPT,
            private_template={
                pkcs11.Attribute.SENSITIVE: True,
                pkcs11.Attribute.EXTRACTABLE: False,
            },
        )


def main(directory: Path, module: str = MODULE) -> None:
    """Make what is missing."""
    tokens, pin_file = directory / "tokens", directory / "pin"
    tokens.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not pin_file.exists():
        place(pin_file, secrets.token_hex(16).encode())
    pin = pin_file.read_text("ascii")
    if not any(tokens.iterdir()):
        initialise(module, secrets.token_hex(16).encode(), pin.encode())
    make_key(module, pin)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:3])
