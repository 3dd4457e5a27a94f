"""What an operator needs to issue the credentials of applications: a file for one region.

It is JSON of mode 0600: the public key of the account ``region``, and the seeds of the scopes of
applications. Its owner can let a client in with the rights of an application, for any grant, and
nothing else: the Gateways still ask for the application's own key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kcm_runtime.files.atomic import place
from kcm_runtime.files.private_files import make_directory
from kcm_runtime.files.secret_file import read_private
from kcm_runtime.nats.nkeys import KeyKind, SigningKey, decode_public
from kcm_schemas.codes import Code, KcmError

from kcm_broker.roles import Role

SIGNED: Final = (Role.APPLICATION, Role.PLAIN)
"""The roles whose users an operator issues."""

_SIZE_MAX: Final = 4096

_LABEL: Final = b"kcm/v1/broker-user"


@dataclass(frozen=True, slots=True)
class Signers:
    """The account of a region, and the signing key of each role of ``SIGNED``."""

    account: str
    keys: Mapping[Role, SigningKey] = field(repr=False)

    def user_key(self, role: Role, application: str, public_key: bytes) -> SigningKey:
        """Return the key with which an application enters as this role.

        It follows from the signing key, the application's name and its public key (32 bytes). So
        every operator issues the same one, and can revoke it with the public key of that time.
        """
        info = b"\0".join((_LABEL, role.value.encode(), application.encode(), public_key))
        return self.keys[role].derive(KeyKind.USER, info)


def to_text(signers: Signers) -> str:
    """Return the text of a file of signers. It has seeds; the file needs mode 600."""
    seeds = {role.value: key.seed() for role, key in signers.keys.items()}
    return json.dumps({"account": signers.account, "seeds": seeds}, indent=2) + "\n"


def write(path: Path, signers: Signers) -> None:
    """Write or replace a file of signers; raises ``OSError``."""
    make_directory(path.parent)
    place(path, to_text(signers).encode("ascii"))


def read(path: Path) -> Signers:
    """Read a file of signers; raises as ``read_private``, and ``malformed``."""
    raw, account = read_private(path, _SIZE_MAX), ""
    try:
        found = json.loads(raw)
        account, seeds = found["account"], found["seeds"]
        keys = {role: SigningKey.from_seed(seeds[role.value]) for role in SIGNED}
        decode_public(account, KeyKind.ACCOUNT)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, KcmError):
        keys = {}
    if not keys or any(key.kind is not KeyKind.ACCOUNT for key in keys.values()):
        raise KcmError(Code.MALFORMED, f"{path} has no keys for the credentials of applications")
    return Signers(account, keys)
