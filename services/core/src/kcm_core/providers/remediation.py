"""Remedies for a customer's key: the policy to grant, and the next step after each failure.

Texts only: this module imports no provider's library.
"""

from __future__ import annotations

from kcm_core.providers.aws_kms import remediation as awskms_help
from kcm_core.providers.azure_key_vault import remediation as azurekv_help
from kcm_core.providers.gcp_kms import remediation as gcpkms_help
from kcm_core.providers.pkcs11 import remediation as pkcs11_help
from kcm_core.providers.state import L1Error, L1State
from kcm_core.providers.uri import AwsKmsUri, AzureKvUri, GcpKmsUri, L1Uri, Pkcs11Uri, SoftkeyUri


def policy(uri: L1Uri) -> str:
    """Return what the key's owner has to grant, ready to paste; ends with a newline."""
    match uri:
        case AwsKmsUri():
            return awskms_help.policy(uri)
        case AzureKvUri():
            return azurekv_help.policy(uri)
        case GcpKmsUri():
            return gcpkms_help.policy(uri)
        case Pkcs11Uri():
            return pkcs11_help.policy(uri)
        case SoftkeyUri():
            return f"chmod 700 {uri.directory} && chmod 600 {uri.directory}/key\n"


def fix_lack(lacks: tuple[str, ...]) -> str:
    """Return one line for a key that works and does not meet all requirements."""
    if any("cannot be read" in one for one in lacks):
        return "let the Core read the key's attributes: `kcm l1 policy URI` prints what to grant"
    return "make another key, as `kcm l1 policy URI` and the provider's page in docs/l1 say"


def fix(uri: L1Uri, error: L1Error) -> str:
    """Return one line with the next step."""
    if "clock" in error.detail:
        return "set this machine's clock, and keep it set: `timedatectl set-ntp true`, or chrony"
    match error.cls:
        case "ModuleNotFoundError":
            return error.detail
        case "TimeoutError":
            return "does a firewall let it through? `kcm l1 check --deadline 30` waits longer"
        case _:
            return _of_its_provider(uri, error)


def _of_its_provider(uri: L1Uri, error: L1Error) -> str:
    match uri:
        case AwsKmsUri():
            return awskms_help.fix(uri, error)
        case AzureKvUri():
            return azurekv_help.fix(uri, error)
        case GcpKmsUri():
            return gcpkms_help.fix(uri, error)
        case Pkcs11Uri():
            return pkcs11_help.fix(error)
        case SoftkeyUri():
            return _softkey_fix(uri, error)


def _softkey_fix(uri: SoftkeyUri, error: L1Error) -> str:
    if error.state.refused:
        return f"echo enabled > {uri.directory}/state"
    if error.state is L1State.INVALID:
        return "the key was replaced: put the old key file back"
    return f"is {uri.directory} there, with `key` of mode 0600 and `state`? (KCM_DEVELOPMENT=1)"
