"""References to an L1 as URIs, parsed and validated without access to the key.

A new provider adds its ``uri`` module with a frozen dataclass and a parser, an arm here, and one in
``catalog``. A URI never contains a secret: URIs are stored, signed, shown and logged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, TypeAlias

from kcm_core.providers.aws_kms.uri import AwsKmsUri, parse_awskms
from kcm_core.providers.azure_key_vault.uri import AzureKvUri, parse_azurekv
from kcm_core.providers.gcp_kms.uri import GcpKmsUri, parse_gcpkms
from kcm_core.providers.pkcs11.uri import Pkcs11Uri, parse_pkcs11
from kcm_core.providers.uri_parts import URI_MAX, L1UriError, UriReason, file_path, refuse

__all__ = [
    "EXTRAS",
    "URI_MAX",
    "AwsKmsUri",
    "AzureKvUri",
    "GcpKmsUri",
    "L1Uri",
    "L1UriError",
    "Pkcs11Uri",
    "SoftkeyUri",
    "UriReason",
    "key_name",
    "parse",
    "scheme",
]


@dataclass(frozen=True, slots=True)
class SoftkeyUri:
    """A directory with a key in a file, for development."""

    directory: str


L1Uri: TypeAlias = AwsKmsUri | AzureKvUri | GcpKmsUri | Pkcs11Uri | SoftkeyUri


EXTRAS: Final = {"awskms": "aws", "azurekv": "azure", "gcpkms": "gcp", "pkcs11": "pkcs11"}
"""The extra of ``kcm-core`` with the provider's library, by scheme."""


def scheme(text: str) -> str:
    """Return the part before the colon, for logs and metrics: at most 16 letters."""
    name = text.partition(":")[0]
    return name if re.fullmatch(r"[a-z][a-z0-9-]{0,15}", name) else "unknown"


def key_name(text: str) -> str:
    """Return a cloud's name for the key of a URI, or an empty string if it has none."""
    try:
        uri = parse(text)
    except L1UriError:
        return ""
    return uri.key if isinstance(uri, AwsKmsUri | AzureKvUri | GcpKmsUri) else ""


def parse(text: str) -> L1Uri:
    """Parse a reference to an L1; raises `L1UriError`."""
    if len(text) > URI_MAX:
        refuse(UriReason.TOO_LONG)
    match text.partition(":"):
        case ("awskms", ":", rest):
            return parse_awskms(rest)
        case ("azurekv", ":", rest):
            return parse_azurekv(rest)
        case ("gcpkms", ":", rest):
            return parse_gcpkms(rest)
        case ("pkcs11", ":", rest):
            return parse_pkcs11(rest)
        case ("softkey", ":", rest):
            return SoftkeyUri(file_path(rest))
        case _:
            raise L1UriError(UriReason.UNKNOWN_SCHEME)
