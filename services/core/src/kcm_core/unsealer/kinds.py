"""The kinds of servers: one for each provider, and for each authority of private endpoints.

Each kind has an environment and rules for files of its own, so that a provider's library finds no
credentials of another provider.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never

from kcm_core.providers.uri import AwsKmsUri, AzureKvUri, GcpKmsUri, L1Uri, Pkcs11Uri, SoftkeyUri
from kcm_core.providers.uri_parts import PATH_MAX

SCHEMES: Final = ("awskms", "azurekv", "gcpkms", "pkcs11", "softkey")

_WORD: Final = b"kcm-unsealer 1"
"""The first line of a connection's first packet, with the version of the protocol."""

HELLO_MAX: Final = 64 + PATH_MAX
"""Bytes of a connection's first packet."""


class BadHello(Exception):
    """The first packet of a connection names no kind of server."""


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


def hello(kind: Kind) -> bytes:
    """Return the first packet of a connection, which asks for a server of this kind."""
    return b"\n".join((_WORD, kind.scheme.encode("ascii"), kind.authority.encode()))


def kind_in(packet: bytes) -> Kind:
    """Return the kind that a first packet asks for; raises ``BadHello``."""
    word, _, rest = packet.partition(b"\n")
    scheme, _, authority = rest.partition(b"\n")
    try:
        kind = Kind(scheme.decode("ascii"), authority.decode())
    except UnicodeDecodeError:
        raise BadHello from None
    usable = kind.authority.startswith("/") or not kind.authority
    if word != _WORD or kind.scheme not in SCHEMES or not usable or len(packet) > HELLO_MAX:
        raise BadHello
    return kind
