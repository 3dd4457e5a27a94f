"""``gcpkms:`` URIs: a key in Google Cloud KMS.

``gcpkms:projects/P/locations/L/keyRings/R/cryptoKeys/K``, and ``/cryptoKeyVersions/N`` to pin the
version that wraps. ``endpoint`` and ``ca`` are for private endpoints and for tests. A URI never
contains credentials: they come from the environment of the Core's unsealer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from kcm_core.providers.uri_parts import UriReason, file_uri, host_and_port, query, refuse

_PARTS: Final = {
    "projects": "a-z0-9:.-",
    "locations": "a-z0-9-",
    "keyRings": "A-Za-z0-9_-",
    "cryptoKeys": "A-Za-z0-9_-",
}
"""The characters of each part of a key's name."""
_KEY: Final = re.compile(
    "("
    + "/".join(f"{part}/[{characters}]{{1,63}}" for part, characters in _PARTS.items())
    + ")(?:/cryptoKeyVersions/([1-9][0-9]{0,8}))?"
)
_ATTRIBUTES: Final = ("ca", "endpoint")


@dataclass(frozen=True, slots=True)
class GcpKmsUri:
    """A key in Google Cloud KMS."""

    key: str
    """``projects/…/locations/…/keyRings/…/cryptoKeys/…``."""
    version: int | None = None
    """The version that wraps; ``None`` means the primary one."""
    endpoint: str | None = None
    """``host`` or ``host:port`` in place of Google's own; always TLS."""
    ca: str | None = None
    """A file with the certificate authority of that endpoint."""


def parse_gcpkms(rest: str) -> GcpKmsUri:
    """Parse the part after ``gcpkms:``; raises ``L1UriError``."""
    name, _, raw = rest.partition("?")
    given = query(raw, _ATTRIBUTES)
    found = _KEY.fullmatch(name)
    if found is None:
        refuse(UriReason.BAD_NAME, _wrong(name.split("/")))
    endpoint, authority = given.get("endpoint"), given.get("ca")
    return GcpKmsUri(
        key=found[1],
        version=int(found[2]) if found[2] else None,
        endpoint=None if endpoint is None else host_and_port(endpoint),
        ca=None if authority is None else file_uri(authority),
    )


def _wrong(steps: list[str]) -> str:
    """Return what is wrong with a key's name; nothing of it is repeated."""
    if steps[0 : 2 * len(_PARTS) : 2] == list(_PARTS):
        for value, (part, characters) in zip(steps[1::2], _PARTS.items(), strict=False):
            if not re.fullmatch(f"[{characters}]{{1,63}}", value):
                return f"the name after {part}/ must have 1 to 63 characters of {characters}"
    return (
        "name a key as projects/P/locations/L/keyRings/R/cryptoKeys/K, optionally with "
        "/cryptoKeyVersions/N"
    )
