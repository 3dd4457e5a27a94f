"""Remedies for a key in Azure: the permissions to grant, and the next step after each failure."""

from __future__ import annotations

from typing import Final

from kcm_core.providers.azure_key_vault.uri import AUTHORITY, PUBLIC, AzureKvUri
from kcm_core.providers.state import L1Error, L1State

ROLE: Final = "Key Vault Crypto Service Encryption User"
"""Azure's built-in role: it may read, wrap and unwrap with a key, and nothing else."""

HSM_ROLE: Final = "Managed HSM Crypto Service Encryption User"
"""The same in a Managed HSM."""

_KIND: Final = "--kty RSA --size 3072 --ops wrapKey unwrapKey"

_FIXES: Final = {
    L1State.DISABLED: "az keyvault key set-attributes {key} --enabled true",
    L1State.PENDING_DELETION: "az keyvault key recover {key}",
    L1State.DELETED: "are the names right? If so, while possible: az keyvault key recover {key}",
    L1State.FORBIDDEN: "grant what `kcm l1 policy URI` prints to the Core's principal",
    L1State.INVALID: "was the key replaced by another one of the same name? Restore the first",
}
_BY_CLASS: Final = {
    "ForbiddenByFirewall": "let the Core's network through: "
    "az keyvault network-rule add {vault} --ip-address ADDRESS-OF-THE-CORE",
    "ForbiddenByConnection": "let the Core's network through: a private endpoint of the vault",
    "ServiceRequestError": "is the vault's name right, and does a firewall let HTTPS through?",
}


def policy(uri: AzureKvUri) -> str:
    """Return commands that grant the needed permissions on this key, for both kinds of vaults."""
    vault = _name(uri)
    cloud = uri.cloud or PUBLIC
    first = "" if cloud is PUBLIC else f"az cloud set --name {cloud.name}\n"
    if _in_hsm(uri):
        return (
            f"{first}az keyvault role assignment create --hsm-name {vault} \\\n"
            f'  --role "{HSM_ROLE}" \\\n'
            "  --assignee CLIENT-ID-OF-THE-CORE \\\n"
            f"  --scope /keys/{uri.key}\n"
        )
    return (
        f"{first}# A vault with role-based access (the default):\n"
        f'az role assignment create --role "{ROLE}" \\\n'
        "  --assignee CLIENT-ID-OF-THE-CORE \\\n"
        f'  --scope "$(az keyvault show --name {vault} --query id -o tsv)/keys/{uri.key}"\n'
        "# A vault with access policies (for all of its keys: use a separate vault):\n"
        f"az keyvault set-policy --name {vault} --spn CLIENT-ID-OF-THE-CORE \\\n"
        "  --key-permissions get wrapKey unwrapKey\n"
    )


def fix(uri: AzureKvUri, error: L1Error) -> str:
    """Return one line with the next step."""
    if uri.cloud is not None and AUTHORITY in error.detail:
        return f'{AUTHORITY} = "https://{uri.cloud.login}" in unsealer_environment of each Core'
    if "credentials" in error.detail:
        return "az login --service-principal, with AZURE_CLIENT_ID and its secret of the unsealer"
    known = _BY_CLASS.get(error.cls) or _FIXES.get(error.state)
    if known is not None:
        where = _where(uri)
        # The option for a vault's name differs between its network rules and its keys.
        vault = where.replace("--vault-name", "--name")
        return known.format(vault=vault, key=f"{where} --name {uri.key}")
    if "kind" in error.detail or "operations" in error.detail:
        return f"az keyvault key create {_where(uri)} --name NEW {_KIND}"
    if "endpoint" in error.detail:
        return "the Core's operator adds HOST:PORT to KCM_L1_ENDPOINTS of its unsealer"
    return "does https://azure.status.microsoft say more? The Core retries by itself"


def _name(uri: AzureKvUri) -> str:
    return uri.vault.partition(".")[0]


def _in_hsm(uri: AzureKvUri) -> bool:
    return ".managedhsm." in uri.vault


def _where(uri: AzureKvUri) -> str:
    return f"--{'hsm' if _in_hsm(uri) else 'vault'}-name {_name(uri)}"
