"""The private endpoints that a URI may name.

An operator names a key by a URI, and the credentials are the Core's. An endpoint of the operator's
choice would receive them: a client secret at an authority, a token at a host. So every host that is
not the cloud's own must be on a list in the Core's configuration: ``KCM_L1_ENDPOINTS`` in
``unsealer_environment``, separated by commas.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from kcm_core.providers.state import L1Error, L1State
from kcm_core.providers.uri import AwsKmsUri, AzureKvUri, GcpKmsUri, L1Uri
from kcm_core.providers.uri_parts import L1UriError, host_and_port

VARIABLE: Final = "KCM_L1_ENDPOINTS"


def named(uri: L1Uri) -> set[str]:
    """Return the hosts that a URI names in place of the cloud's own."""
    match uri:
        case AwsKmsUri() | GcpKmsUri():
            found = {uri.endpoint}
        case AzureKvUri():
            # Without its own authority, a vault is one of Azure's by its name.
            found = {uri.authority, uri.vault if uri.ca or uri.authority else None}
        case _:
            found = set()
    return {host for host in found if host is not None}


def _listed(allowed: str) -> Iterator[str]:
    for host in allowed.split(","):
        with suppress(L1UriError):  # an invalid entry allows nothing
            yield host_and_port(host.strip())


def check(uri: L1Uri, allowed: str) -> None:
    """Raise ``L1Error`` (unreachable) for a host that is not on the list; no call is made then.

    A certificate authority in a URI vouches for hosts, so it requires an endpoint by name.
    """
    if isinstance(uri, AwsKmsUri | GcpKmsUri) and uri.ca is not None and uri.endpoint is None:
        raise L1Error(L1State.UNREACHABLE, "a ca is for an endpoint: name the endpoint, too")
    if named(uri) - set(_listed(allowed)):
        hint = f"the endpoint is not allowed here: see {VARIABLE} of the unsealer"
        raise L1Error(L1State.UNREACHABLE, hint)
