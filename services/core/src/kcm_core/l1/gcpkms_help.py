"""To be written."""

from __future__ import annotations

from kcm_core.l1.gcpkms_uri import GcpKmsUri
from kcm_core.l1.state import L1Error


def policy(uri: GcpKmsUri) -> str:
    """What to grant."""
    return f"{uri.key}\n"


def fix(error: L1Error) -> str:
    """What to do next."""
    return error.detail
