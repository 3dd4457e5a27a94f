"""The context that binds a wrapped tenant root (L2) to its tenant, region and version."""

from __future__ import annotations

from kcm_schemas import labels
from kcm_schemas.labels import ctx


def provider_context(tenant: str, region: str, version: int) -> bytes:
    """Return the context that an L1 authenticates with the blob, if it can."""
    return ctx(labels.L1_CONTEXT, tenant, region, version)
