"""``azurekv:`` URIs: a key in Azure Key Vault or Managed HSM.

``azurekv:acme.vault.azure.net/root``, and ``/VERSION`` to pin one; or, after ``azurekv:``, the
key's identifier as Azure shows it: ``https://acme.vault.azure.net/keys/root/VERSION``. The vault's
name determines its cloud. A vault with another name than Azure's needs ``ca``, and is for private
deployments and tests; ``authority`` is then the host that issues tokens. A URI never contains
credentials: they come from the environment of the Core's unsealer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from kcm_core.providers.uri_parts import UriReason, file_uri, host_and_port, query, refuse


@dataclass(frozen=True, slots=True)
class AzureCloud:
    """One of Azure's clouds: its name in ``az cloud``, and the host that issues its tokens."""

    name: str
    login: str


PUBLIC: Final = AzureCloud("AzureCloud", "login.microsoftonline.com")
_CLOUDS: Final = {
    "azure.net": PUBLIC,
    "azure.cn": AzureCloud("AzureChinaCloud", "login.chinacloudapi.cn"),
    "usgovcloudapi.net": AzureCloud("AzureUSGovernment", "login.microsoftonline.us"),
}
"""By the end of the vaults' names."""

LOGINS: Final = frozenset(cloud.login for cloud in _CLOUDS.values())
AUTHORITY: Final = "AZURE_AUTHORITY_HOST"
"""Azure's own variable: the cloud of the credentials, by its login host; by default the public."""

_VAULT: Final = re.compile(
    r"[a-z0-9-]{1,63}\.(?:vault|managedhsm)\."
    rf"(?P<cloud>{'|'.join(re.escape(name) for name in _CLOUDS)})"
)
_IDENTIFIER: Final = re.compile(r"https://([^/]+)/keys/(.+)")
_KEY: Final = re.compile(r"[A-Za-z0-9-]{1,127}")
_VERSION: Final = re.compile(r"[0-9a-f]{32}")
_ATTRIBUTES: Final = ("authority", "ca")


@dataclass(frozen=True, slots=True)
class AzureKvUri:
    """A key in a vault."""

    vault: str
    """``host`` or ``host:port``; always HTTPS."""
    key: str
    version: str | None = None
    """The version that wraps; ``None`` means the newest. Each blob names its own version."""
    authority: str | None = None
    ca: str | None = None

    @property
    def cloud(self) -> AzureCloud | None:
        """The vault's Azure cloud, by its name; ``None`` for a private deployment."""
        found = _VAULT.fullmatch(self.vault)
        return None if found is None or self.ca is not None else _CLOUDS[found["cloud"]]


def parse_azurekv(rest: str) -> AzureKvUri:
    """Parse the part after ``azurekv:``; raises ``L1UriError``."""
    name, _, raw = rest.partition("?")
    given = query(raw, _ATTRIBUTES)
    identifier = _IDENTIFIER.fullmatch(name)
    vault, _, path = (
        name.partition("/") if identifier is None else (identifier[1], "", identifier[2])
    )
    key, slash, version = path.partition("/")
    if _KEY.fullmatch(key) is None or (slash and _VERSION.fullmatch(version) is None):
        refuse(
            UriReason.BAD_NAME,
            "name a key as VAULT-HOST/KEY-NAME or VAULT-HOST/KEY-NAME/VERSION",
        )
    host, authority, ca = host_and_port(vault), given.get("authority"), given.get("ca")
    if ca is None and _VAULT.fullmatch(host) is None:
        refuse(
            UriReason.BAD_NAME, "the vault is not one of Azure's: name it as NAME.vault.azure.net"
        )
    return AzureKvUri(
        vault=host,
        key=key,
        version=version or None,
        authority=None if authority is None else host_and_port(authority),
        ca=None if ca is None else file_uri(ca),
    )
