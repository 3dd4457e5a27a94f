"""To be written."""

from __future__ import annotations

from kcm_core.l1.awskms_uri import AwsKmsUri
from kcm_core.l1.state import L1Error


def policy(uri: AwsKmsUri) -> str:
    """What to grant."""
    return f"{uri.key}\n"


def fix(error: L1Error) -> str:
    """What to do next."""
    return error.detail
