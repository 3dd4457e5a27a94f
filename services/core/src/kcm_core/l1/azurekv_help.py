"""What to do about a key in Azure: the permissions to grant, the next step after each failure."""

from __future__ import annotations

from typing import Final

from kcm_core.l1.azurekv_uri import AzureKvUri
from kcm_core.l1.state import L1Error, L1State

ROLE: Final = "Key Vault Crypto Service Encryption User"
"""Azure's own role: it reads, wraps and unwraps with a key, and may do nothing else."""

_FIXES: Final = {
    L1State.DISABLED: "az keyvault key set-attributes --vault-name VAULT --name KEY --enabled true",
    L1State.PENDING_DELETION: "az keyvault key recover --vault-name VAULT --name KEY",
    L1State.DELETED: "are vault and name right? Else: az keyvault key recover, while it can be",
    L1State.FORBIDDEN: "grant what `kcm l1 policy URI` prints to the Core's principal",
    L1State.INVALID: "was the key replaced by another one of its name? Restore the first",
}
_BY_CLASS: Final = {
    "ForbiddenByFirewall": "let the Core's network through: az keyvault network-rule add",
    "ForbiddenByConnection": "let the Core's network through: a private endpoint of the vault",
    "ServiceRequestError": "is the vault's name right, and does a firewall let HTTPS through?",
}


def policy(uri: AzureKvUri) -> str:
    """Commands that grant exactly what is needed on exactly this key; two ways, for two vaults."""
    vault = uri.vault.partition(".")[0]
    return (
        "# A vault with role-based access (the default):\n"
        f'az role assignment create --role "{ROLE}" \\\n'
        "  --assignee CLIENT-ID-OF-THE-CORE \\\n"
        f'  --scope "$(az keyvault show --name {vault} --query id -o tsv)/keys/{uri.key}"\n'
        "# A vault with access policies (for all of its keys: use a vault of its own):\n"
        f"az keyvault set-policy --name {vault} --spn CLIENT-ID-OF-THE-CORE \\\n"
        "  --key-permissions get wrapKey unwrapKey\n"
    )


def fix(error: L1Error) -> str:
    """One line that says what to do next."""
    if "credentials" in error.detail:
        return "az login --service-principal, with AZURE_CLIENT_ID and its secret of the unsealer"
    known = _BY_CLASS.get(error.cls) or _FIXES.get(error.state)
    if known is not None:
        return known
    if "kind" in error.detail or "operations" in error.detail:
        return "az keyvault key create --kty RSA --size 3072 --ops wrapKey unwrapKey"
    if "endpoint" in error.detail:
        return "whoever runs the Core puts HOST:PORT into KCM_L1_ENDPOINTS of its unsealer"
    return "does https://azure.status.microsoft say more? It is tried again by itself"
