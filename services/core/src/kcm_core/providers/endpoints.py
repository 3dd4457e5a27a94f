"""Which private endpoints a URI may name.

An operator names a key by a URI, and the credentials are the Core's. To an endpoint of the
operator's own they would be handed over: a client secret to an authority, a token to a host that
keeps it. So whatever is not the cloud's own name has to be on a list that whoever runs the Core
wrote: ``KCM_L1_ENDPOINTS`` in ``unsealer_environment``, separated by commas.
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
    """The hosts that a URI names in place of the cloud's own."""
    match uri:
        case AwsKmsUri() | GcpKmsUri():
            found = {uri.endpoint}
        case AzureKvUri():
            # Without an authority of its own a vault is one of Azure's by its name.
            found = {uri.authority, uri.vault if uri.ca or uri.authority else None}
        case _:
            found = set()
    return {host for host in found if host is not None}


def _listed(allowed: str) -> Iterator[str]:
    for host in allowed.split(","):
        with suppress(L1UriError):  # what is none allows none
            yield host_and_port(host.strip())


def check(uri: L1Uri, allowed: str) -> None:
    """Raise ``L1Error`` (unreachable) for a host that is not on the list; nobody is asked then.

    An authority of the operator's own says who a host is, and so needs one that is named.
    """
    if isinstance(uri, AwsKmsUri | GcpKmsUri) and uri.ca is not None and uri.endpoint is None:
        raise L1Error(L1State.UNREACHABLE, "a ca is for an endpoint: name the endpoint, too")
    if named(uri) - set(_listed(allowed)):
        hint = f"an endpoint that is not allowed here: see {VARIABLE} of the unsealer"
        raise L1Error(L1State.UNREACHABLE, hint)
