"""``azurekv:`` URIs: a key in Azure Key Vault."""

from __future__ import annotations

from dataclasses import dataclass

from kcm_core.l1.uri_parts import UriReason, refuse


@dataclass(frozen=True, slots=True)
class AzureKvUri:
    """A key in Azure Key Vault."""

    vault: str
    """The vault's host: ``name.vault.azure.net``, perhaps with a port."""
    key: str
    version: str | None = None
    """A version that is pinned; none: the newest one wraps."""


def parse_azurekv(rest: str) -> AzureKvUri:
    """Parse what stands behind ``azurekv:``; raises ``L1UriError``."""
    del rest
    refuse(UriReason.BAD_NAME)
