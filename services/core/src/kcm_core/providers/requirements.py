"""The requirements for a root key, in one table for the policy's text, the check and the docs.

A provider describes a key by *facts*: names and words of the provider. A missing fact meets no
requirement. A key that lacks something still works: a link of model byok accepts it and the check
reports what is missing; a link of model hyok refuses it. This module imports no library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal

from kcm_core.providers.state import safe_text
from kcm_core.providers.uri import AwsKmsUri, AzureKvUri, GcpKmsUri, L1Uri, Pkcs11Uri, SoftkeyUri

Model = Literal["byok", "hyok"]
Facts = Mapping[str, str]

FACTS_MAX: Final = 32
"""Facts of one key that are read: twice as many as any provider here returns."""

NOT_SAID: Final = "not said"


@dataclass(frozen=True, slots=True)
class Demand:
    """One fact and its acceptable words; with ``least``, the least acceptable number."""

    fact: str
    good: tuple[str, ...] = ()
    least: int = 0
    note: str = ""
    only_hyok: bool = False

    @property
    def wanted(self) -> str:
        """The acceptable values, as text."""
        return f"{self.least} or more" if self.least else " or ".join(self.good)

    def met(self, facts: Facts) -> bool:
        """Whether the key's own facts meet the requirement."""
        said = facts.get(self.fact, "")
        if self.least:
            return said.isascii() and said.isdecimal() and int(said) >= self.least
        return said in self.good


_TRUE: Final = ("true",)
_FALSE: Final = ("false",)

PKCS11_SECRET: Final = (
    Demand("CKA_CLASS", ("CKO_SECRET_KEY",)),
    Demand("CKA_KEY_TYPE", ("CKK_AES",)),
    Demand("CKA_VALUE_LEN", ("32",), note="bytes: 256 bits"),
    Demand("CKA_TOKEN", _TRUE),
    Demand("CKA_PRIVATE", _TRUE),
    Demand("CKA_SENSITIVE", _TRUE),
    Demand("CKA_ALWAYS_SENSITIVE", _TRUE, note="the token sets it"),
    Demand("CKA_EXTRACTABLE", _FALSE),
    Demand("CKA_NEVER_EXTRACTABLE", _TRUE, note="the token sets it"),
    Demand("CKA_LOCAL", _TRUE, note="made in the token, not imported"),
    Demand("CKA_ENCRYPT", _TRUE, note="for wrapping: when a tenant or a version is made"),
    Demand("CKA_DECRYPT", _TRUE, note="false is the kill switch"),
)
PKCS11_PAIR: Final = (
    Demand("CKA_CLASS", ("CKO_PRIVATE_KEY",), note="and CKO_PUBLIC_KEY, of one CKA_ID"),
    Demand("CKA_KEY_TYPE", ("CKK_RSA",)),
    Demand("CKA_MODULUS_BITS", least=3072),
    Demand("CKA_TOKEN", _TRUE),
    Demand("CKA_PRIVATE", _TRUE, note="the private one"),
    Demand("CKA_SENSITIVE", _TRUE, note="the private one"),
    Demand("CKA_ALWAYS_SENSITIVE", _TRUE, note="the token sets it"),
    Demand("CKA_EXTRACTABLE", _FALSE, note="the private one"),
    Demand("CKA_NEVER_EXTRACTABLE", _TRUE, note="the token sets it"),
    Demand("CKA_LOCAL", _TRUE, note="made in the token, not imported"),
    Demand("CKA_ENCRYPT", _TRUE, note="the public one"),
    Demand("CKA_DECRYPT", _TRUE, note="the private one; false is the kill switch"),
)
AWSKMS: Final = (
    Demand("KeySpec", ("SYMMETRIC_DEFAULT",)),
    Demand("KeyUsage", ("ENCRYPT_DECRYPT",)),
    Demand("KeyState", ("Enabled",)),
    Demand(
        "Origin", ("AWS_KMS", "AWS_CLOUDHSM", "EXTERNAL_KEY_STORE"), note="EXTERNAL is imported"
    ),
)
GCPKMS: Final = (
    Demand("purpose", ("ENCRYPT_DECRYPT",)),
    Demand("state", ("ENABLED",), note="of the version that wraps"),
    Demand("imported", _FALSE),
    Demand(
        "protectionLevel", ("HSM", "HSM_SINGLE_TENANT", "EXTERNAL", "EXTERNAL_VPC"), only_hyok=True
    ),
)
AZUREKV: Final = (
    Demand("kty", ("RSA", "RSA-HSM")),
    Demand("bits", least=2048),
    Demand("wrapKey", _TRUE, note="one of key_ops"),
    Demand("unwrapKey", _TRUE, note="one of key_ops"),
    Demand("enabled", _TRUE),
    Demand("exportable", _FALSE),
    Demand("protection", ("HSM",), note="kty RSA-HSM", only_hyok=True),
)
SOFTKEY: Final = (Demand("bits", ("256",)),)
"""A softkey is a file: every reader of the file has the key. It replaces any other key if
development is switched on, and works nowhere else."""


def of(uri: L1Uri, facts: Facts) -> tuple[Demand, ...]:
    """Return the requirements for a key; whether PKCS#11 names a pair follows from the facts."""
    match uri:
        case AwsKmsUri():
            return AWSKMS
        case AzureKvUri():
            return AZUREKV
        case GcpKmsUri():
            return GCPKMS
        case Pkcs11Uri():
            pair = facts.get("CKA_CLASS") == "CKO_PRIVATE_KEY"
            return PKCS11_PAIR if pair else PKCS11_SECRET
        case SoftkeyUri():
            return SOFTKEY


def lacking(uri: L1Uri, facts: Facts, model: Model) -> tuple[str, ...]:
    """Return what a link of this model requires and the key lacks, one line each."""
    return tuple(
        f"{one.fact} is {facts.get(one.fact, NOT_SAID)}: it has to be {one.wanted}"
        for one in of(uri, facts)
        if (model == "hyok" or not one.only_hyok) and not one.met(facts)
    )


def as_text(demands: tuple[Demand, ...]) -> str:
    """Return the requirements as lines of a policy."""
    return "".join(
        f"  {one.fact:<22} {one.wanted:<15} {one.note}".rstrip() + "\n" for one in demands
    )


def as_table(demands: tuple[Demand, ...]) -> str:
    """Return the requirements as rows of the docs."""
    rows = (
        f"| `{one.fact}` | {one.wanted} | {'hyok' if one.only_hyok else 'both'} | {one.note} |\n"
        for one in demands
    )
    return "| of the key | has to be | model | |\n|---|---|---|---|\n" + "".join(rows)


def packed(facts: Facts) -> bytes:
    """Encode facts as an answer's payload: one line each, in text that is safe to show."""
    lines = (f"{safe_text(name)} {safe_text(word)}" for name, word in facts.items())
    return "\n".join(lines).encode("ascii")


def unpacked(payload: bytes | bytearray) -> Facts:
    """Decode the facts of an answer, made safe to show; never raises."""
    lines = islice(bytes(payload).decode("ascii", "replace").split("\n"), FACTS_MAX)
    pairs = (line.partition(" ") for line in lines)
    return {safe_text(name): safe_text(word) for name, _, word in pairs if name}
