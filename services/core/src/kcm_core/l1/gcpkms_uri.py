"""``gcpkms:`` URIs: a key in Google Cloud KMS."""

from __future__ import annotations

from dataclasses import dataclass

from kcm_core.l1.uri_parts import UriReason, refuse


@dataclass(frozen=True, slots=True)
class GcpKmsUri:
    """A key in Google Cloud KMS."""

    key: str
    """``projects/…/locations/…/keyRings/…/cryptoKeys/…``."""
    version: int | None = None
    """A version that is pinned; none: the primary one wraps."""
    endpoint: str | None = None
    """``host:port`` in place of Google's own."""


def parse_gcpkms(rest: str) -> GcpKmsUri:
    """Parse what stands behind ``gcpkms:``; raises ``L1UriError``."""
    del rest
    refuse(UriReason.BAD_NAME)
