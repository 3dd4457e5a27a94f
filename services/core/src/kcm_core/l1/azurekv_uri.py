"""``azurekv:`` URIs: a key in Azure Key Vault or Managed HSM.

``azurekv:acme.vault.azure.net/root``, and ``/VERSION`` to pin one. A vault outside of Azure's own
names needs ``ca``, and is for private deployments and tests; ``authority`` is where tokens are
asked for then. Credentials never stand here: they come from the environment of the Core's unsealer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from kcm_core.l1.uri_parts import UriReason, file_uri, host_and_port, query, refuse

_SUFFIXES: Final = (
    ".vault.azure.net",
    ".vault.azure.cn",
    ".vault.usgovcloudapi.net",
    ".managedhsm.azure.net",
    ".managedhsm.azure.cn",
    ".managedhsm.usgovcloudapi.net",
)
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
    """The one that wraps; none: the newest one. Each blob names the version that opens it."""
    authority: str | None = None
    ca: str | None = None


def parse_azurekv(rest: str) -> AzureKvUri:
    """Parse what stands behind ``azurekv:``; raises ``L1UriError``."""
    name, _, raw = rest.partition("?")
    given = query(raw, _ATTRIBUTES)
    vault, _, path = name.partition("/")
    key, slash, version = path.partition("/")
    if _KEY.fullmatch(key) is None or (slash and _VERSION.fullmatch(version) is None):
        refuse(
            UriReason.BAD_NAME,
            "a key is named as VAULT-HOST/KEY-NAME or VAULT-HOST/KEY-NAME/VERSION",
        )
    host, authority, ca = host_and_port(vault), given.get("authority"), given.get("ca")
    if ca is None and not host.endswith(_SUFFIXES):
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
