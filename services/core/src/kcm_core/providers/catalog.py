"""Selecting a provider by the scheme of its URI, and importing only that one.

``warm`` runs in the fork server before it forks, so that the library is imported once and not in
every child. It must not open a connection or initialise a PKCS#11 module, which do not survive a
fork.
"""

# ruff: noqa: PLC0415 - each arm imports only its own library, which is the module's purpose

from __future__ import annotations

import os
from typing import assert_never

from kcm_core.providers import endpoints
from kcm_core.providers.pkcs11 import modules
from kcm_core.providers.port import L1Provider
from kcm_core.providers.uri import AwsKmsUri, AzureKvUri, GcpKmsUri, L1Uri, Pkcs11Uri, SoftkeyUri


def warm(uri: L1Uri, *, development: bool) -> None:
    """Import a provider's library; raises ImportError if it is not installed."""
    match uri:
        case AwsKmsUri():
            from kcm_core.providers.aws_kms import provider as _awskms  # noqa: F401 - for its effect
        case AzureKvUri():
            from kcm_core.providers.azure_key_vault import provider as azurekv

            azurekv.rehearse()
        case GcpKmsUri():
            from kcm_core.providers.gcp_kms import provider as _gcpkms  # noqa: F401 - for its effect
        case Pkcs11Uri():
            from kcm_core.providers.pkcs11 import provider as _pkcs11  # noqa: F401 - for its effect
        case SoftkeyUri():
            from kcm_core.providers.softkey import provider as softkey

            if development:
                softkey.announce()
        case _:
            assert_never(uri)


def open_provider(uri: L1Uri, *, development: bool) -> L1Provider:
    """Open the provider for one operation; raises `L1Error` or ImportError."""
    endpoints.check(uri, os.environ.get(endpoints.VARIABLE, ""))
    match uri:
        case AwsKmsUri():
            from kcm_core.providers.aws_kms.provider import AwsKmsProvider

            return AwsKmsProvider(uri)
        case AzureKvUri():
            from kcm_core.providers.azure_key_vault.provider import AzureKvProvider

            return AzureKvProvider(uri)
        case GcpKmsUri():
            from kcm_core.providers.gcp_kms.provider import GcpKmsProvider

            return GcpKmsProvider(uri)
        case Pkcs11Uri():
            from kcm_core.providers.pkcs11.provider import Pkcs11Provider

            modules.check(uri, os.environ.get(modules.VARIABLE, ""))
            return Pkcs11Provider(uri)
        case SoftkeyUri():
            from kcm_core.providers.softkey.provider import SoftkeyProvider

            return SoftkeyProvider(uri, development=development)
        case _:
            assert_never(uri)
