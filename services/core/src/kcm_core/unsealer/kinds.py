"""The kinds of servers: one for each provider, and for each authority of private endpoints.

Each kind has an environment and rules for files of its own, so that a provider's library finds no
credentials of another provider.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never

from kcm_core.providers.uri import AwsKmsUri, AzureKvUri, GcpKmsUri, L1Uri, Pkcs11Uri, SoftkeyUri

SCHEMES: Final = ("awskms", "azurekv", "gcpkms", "pkcs11", "softkey")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of server. ``authority`` is the file of a certificate, or empty."""

    scheme: str
    authority: str = ""


def kind_of(uri: L1Uri) -> Kind:
    """Return the kind of server that calls the key of a URI."""
    match uri:
        case AwsKmsUri():
            return Kind("awskms", uri.ca or "")
        case AzureKvUri():
            return Kind("azurekv", uri.ca or "")
        case GcpKmsUri():
            return Kind("gcpkms", uri.ca or "")
        case Pkcs11Uri():
            return Kind("pkcs11")
        case SoftkeyUri():
            return Kind("softkey")
        case _:
            assert_never(uri)
