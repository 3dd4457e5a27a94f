"""Which variables a provider's processes get: those of every provider, and its own.

A cloud's variables begin with a word of the cloud. A PKCS#11 module is configured by variables that
its vendor named, so all variables that belong to no cloud are for modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_FOR_ALL: Final = frozenset(
    {"HOME", "KCM_DEVELOPMENT", "KCM_L1_CONFINEMENT", "KCM_L1_READ", "KCM_L1_WRITE",
     "KCM_LOG_FORMAT", "KCM_UNSEALER_KEEP_OUT", "LANG", "PATH", "TZ"}
)  # fmt: skip

_FOR_CLOUDS: Final = frozenset(
    {"ALL_PROXY", "CURL_CA_BUNDLE", "HTTPS_PROXY", "HTTP_PROXY", "KCM_L1_ENDPOINTS", "NO_PROXY",
     "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE"}
)  # fmt: skip
"""Without regard to case: programs disagree about the case of proxies."""

_OF_CLOUD: Final = {
    "awskms": ("AWS_", "BOTO_"),
    "azurekv": ("AZURE_", "IDENTITY_", "IMDS_", "MSI_"),
    "gcpkms": ("CLOUDSDK_", "GCE_", "GCLOUD_", "GOOGLE_", "GRPC_", "NO_GCE_"),
}

_OF_MANAGER: Final = ("INVOCATION_ID", "JOURNAL_STREAM", "LISTEN_", "NOTIFY_SOCKET", "SYSTEMD_")
"""What a service manager gives to the unsealer and means for no other process."""


def environment_for(scheme: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for the processes of one provider."""
    return {name: value for name, value in environment.items() if _is_for(scheme, name)}


def first_scheme(environment: Mapping[str, str]) -> str:
    """Return the provider that the environment is most likely for: its server is started first."""
    for scheme in ("pkcs11", *_OF_CLOUD):
        if any(_is_for(scheme, name) and not _is_shared(name) for name in environment):
            return scheme
    return "softkey" if environment.get("KCM_DEVELOPMENT") == "1" else "pkcs11"


def _is_shared(name: str) -> bool:
    return name in _FOR_ALL or name.startswith("LC_") or name.upper() in _FOR_CLOUDS


def _is_for(scheme: str, name: str) -> bool:
    if name in _FOR_ALL or name.startswith("LC_"):
        return True
    if name.startswith(_OF_MANAGER):
        return False
    if name.upper() in _FOR_CLOUDS:
        return scheme in _OF_CLOUD
    for cloud, words in _OF_CLOUD.items():
        if name.startswith(words):
            return scheme == cloud
    return scheme == "pkcs11"
