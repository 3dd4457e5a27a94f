"""Remedies for a key in Google Cloud: the role to grant, and the next step after each failure."""

from __future__ import annotations

from typing import Final

from kcm_core.providers.gcp_kms.uri import GcpKmsUri
from kcm_core.providers.state import L1Error, L1State

ROLE: Final = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
"""Google's built-in role: it may encrypt and decrypt with a key, and nothing else."""

VIEWER: Final = "roles/cloudkms.viewer"
"""Google's built-in role: it may describe a key, and use none."""

_FIXES: Final = {
    L1State.DISABLED: "gcloud kms keys versions enable {version}",
    L1State.PENDING_DELETION: "gcloud kms keys versions restore {version}",
    L1State.DELETED: "are project, location, ring and key right? Destroyed keys are not restored",
    L1State.FORBIDDEN: "grant what `kcm l1 policy URI` prints to the Core's service account",
    L1State.INVALID: "was the key replaced, or the entry changed? Name the key that wrapped it",
}
_BY_CLASS: Final = {
    "PermissionDenied": "is the project paid for, cloudkms.googleapis.com enabled in it, and the "
    "token's scope cloudkms? Does a perimeter of VPC Service Controls let the Core through?",
    "InvalidArgument": "gcloud kms keys create NAME {ring} --purpose encryption",
    "ServiceUnavailable": "is the endpoint right, and does a firewall let HTTPS through?",
}


def policy(uri: GcpKmsUri) -> str:
    """Return the commands that grant the needed permissions on this key."""
    ring, key = _parts(uri)
    return "".join(
        f"gcloud kms keys add-iam-policy-binding {key} \\\n"
        f"  {ring} \\\n"
        f"  --role {role} \\\n"
        "  --member serviceAccount:CORE@YOUR-PROJECT.iam.gserviceaccount.com\n"
        for role in (ROLE, VIEWER)
    )


def fix(uri: GcpKmsUri, error: L1Error) -> str:
    """Return one line with the next step."""
    if "credentials" in error.detail:
        return "name a service account's key file with GOOGLE_APPLICATION_CREDENTIALS"
    known = _FIXES.get(error.state) or _BY_CLASS.get(error.cls)
    if known is not None:
        ring, key = _parts(uri)
        return known.format(ring=ring, version=f"{uri.version or 'N'} {ring} --key {key}")
    if "endpoint" in error.detail:
        return "the Core's operator adds HOST:PORT to KCM_L1_ENDPOINTS of its unsealer"
    return "does https://status.cloud.google.com say more? The Core retries by itself"


def _parts(uri: GcpKmsUri) -> tuple[str, str]:
    """Return the key's ring as options of gcloud, and the key's name."""
    _, project, _, location, _, ring, _, key = uri.key.split("/")
    return f"--project {project} --location {location} --keyring {ring}", key
