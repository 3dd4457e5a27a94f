"""To be written."""

from __future__ import annotations

from kcm_core.l1.azurekv_uri import AzureKvUri
from kcm_core.l1.state import L1Error


def policy(uri: AzureKvUri) -> str:
    """What to grant."""
    return f"{uri.key}\n"


def fix(error: L1Error) -> str:
    """What to do next."""
    return error.detail
