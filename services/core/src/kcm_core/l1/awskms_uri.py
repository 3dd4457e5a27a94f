"""``awskms:`` URIs: a key in AWS KMS."""

from __future__ import annotations

from dataclasses import dataclass

from kcm_core.l1.uri_parts import UriReason, refuse


@dataclass(frozen=True, slots=True)
class AwsKmsUri:
    """A key in AWS KMS."""

    key: str
    """A key's or alias's ARN, or ``alias/name``, or a key id."""
    region: str
    role: str | None = None
    """The ARN of a role to assume."""
    external_id: str | None = None
    endpoint: str | None = None
    """``https://host:port`` in place of the region's own."""


def parse_awskms(rest: str) -> AwsKmsUri:
    """Parse what stands behind ``awskms:``; raises ``L1UriError``."""
    del rest
    refuse(UriReason.BAD_NAME)
