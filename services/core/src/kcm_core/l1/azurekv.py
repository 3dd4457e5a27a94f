"""A key in Azure Key Vault: RSA-OAEP with SHA-256, and nothing else.

Only ``unwrapKey`` proves that a key is alive: the SDK wraps with the public half on its own, also
with a key that was disabled long ago. OAEP authenticates no context; the nested blob does.

A vault opens only with the version that wrapped, so the blob begins with it. Retries are switched
off for the vault and for tokens, and every request has bounds of its own.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
from typing import Any, Final

from azure.core.credentials import TokenCredential
from azure.core.exceptions import AzureError
from azure.identity import (
    CertificateCredential,
    ClientSecretCredential,
    ManagedIdentityCredential,
)
from azure.keyvault.keys import KeyClient, KeyVaultKey
from azure.keyvault.keys.crypto import CryptographyClient, KeyWrapAlgorithm

from kcm_core.l1.azurekv_errors import of, translated
from kcm_core.l1.azurekv_uri import AzureKvUri
from kcm_core.l1.port import Opened, WrapResult, unknown_mechanism
from kcm_core.l1.state import L1Error, L1State

MECHANISM: Final = "azure-rsa-oaep-256"
"""The blob is the version's name (32 hexadecimal digits in ASCII), then RSA-OAEP with SHA-256."""

CONNECT_S: Final = 2
READ_S: Final = 5
"""Seconds for connecting, and for waiting for an answer."""

BITS_MIN: Final = 2048

_VERSION_SIZE: Final = 32
_VERSION: Final = re.compile(rb"[0-9a-f]{32}")
_ALGORITHM: Final = KeyWrapAlgorithm.rsa_oaep_256


@functools.cache
def rehearse() -> None:
    """Do what a process does once, before the fork, so that no child has to.

    Most of a first request's time goes into Python's own caches of classes. Nobody listens on
    port 1 of the loopback: two requests are made up, and refused.
    """
    logging.getLogger("azure").setLevel(logging.CRITICAL)  # of failures we speak ourselves
    nowhere = AzureKvUri(vault="127.0.0.1:1", key="x", authority="127.0.0.1:1")
    provider = AzureKvProvider(nowhere)
    options = provider._options()  # noqa: SLF001 - our own
    credential = ClientSecretCredential(
        "00000000-0000-0000-0000-000000000000", "x", "x", authority="127.0.0.1:1",
        disable_instance_discovery=True, **options,
    )  # fmt: skip
    for request in (
        lambda: credential.get_token("https://vault.azure.net/.default"),
        lambda: provider._unwrap("x", b"x", credential),  # noqa: SLF001 - our own
    ):
        with contextlib.suppress(Exception):
            request()


class AzureKvProvider:
    """The key that an ``azurekv:`` URI names."""

    def __init__(self, uri: AzureKvUri) -> None:
        self._uri = uri

    def wrap(self, plaintext: bytes | bytearray | memoryview, context: bytes) -> WrapResult:
        """Wrap with the URI's version, else the newest one. ``context`` is bound elsewhere."""
        del context
        with translated():
            credential, principal = self._credential()
            with KeyClient(f"https://{self._uri.vault}", credential, **self._options()) as client:
                key = client.get_key(self._uri.key, self._uri.version)
            _suits(key)
            version = str(key.properties.version)
            with CryptographyClient(key, credential, **self._options()) as cipher:
                sealed = cipher.wrap_key(_ALGORITHM, bytes(plaintext)).encrypted_key
            return WrapResult(version.encode("ascii") + sealed, MECHANISM, version, principal)

    def unwrap(self, blob: bytes, context: bytes, mechanism: str) -> Opened:
        """Open what ``wrap`` made, with the version that made it."""
        del context
        if mechanism != MECHANISM:
            raise unknown_mechanism()
        head, sealed = blob[:_VERSION_SIZE], blob[_VERSION_SIZE:]
        if _VERSION.fullmatch(head) is None or not sealed:
            raise L1Error(L1State.INVALID, "the blob does not name a version of the key")
        version = head.decode("ascii")
        with translated():
            credential, principal = self._credential()
            try:
                opened = self._unwrap(version, sealed, credential)
            except AzureError as error:
                if self._lacks(error, credential):
                    hint = "the key never had the version that the blob names"
                    raise L1Error(L1State.INVALID, hint) from None
                raise of(error, unwrapping=True) from None
            return Opened(opened, version, principal)

    def _unwrap(self, version: str, sealed: bytes, credential: TokenCredential) -> bytes:
        name = f"https://{self._uri.vault}/keys/{self._uri.key}/{version}"
        with CryptographyClient(name, credential, **self._options()) as cipher:
            return cipher.unwrap_key(_ALGORITHM, sealed).key

    def _lacks(self, error: AzureError, credential: TokenCredential) -> bool:
        """Whether the key is there, and only that version is not: a blob may name anything."""
        if getattr(error, "status_code", None) != 404:
            return False
        with KeyClient(f"https://{self._uri.vault}", credential, **self._options()) as client:
            client.get_key(self._uri.key)  # raises when the key itself is not there
        return True

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "connection_timeout": CONNECT_S,
            "read_timeout": READ_S,
            "retry_total": 0,
        }
        if self._uri.ca is not None:
            # A deployment of one's own: its names are not Azure's, its authority is its own.
            options |= {"connection_verify": self._uri.ca, "verify_challenge_resource": False}
        return options

    def _credential(self) -> tuple[TokenCredential, str]:
        """Who asks, by the environment: a secret, a certificate, or the machine's identity."""
        found = {
            name: os.environ.get(f"AZURE_{name}", "")
            for name in ("TENANT_ID", "CLIENT_ID", "CLIENT_SECRET", "CLIENT_CERTIFICATE_PATH")
        }
        tenant, client = found["TENANT_ID"], found["CLIENT_ID"]
        options = {k: v for k, v in self._options().items() if k != "verify_challenge_resource"}
        if self._uri.authority is not None:
            options |= {"authority": self._uri.authority, "disable_instance_discovery": True}
        if found["CLIENT_SECRET"]:
            secret = found["CLIENT_SECRET"]
            return ClientSecretCredential(tenant, client, secret, **options), client
        if found["CLIENT_CERTIFICATE_PATH"]:
            path = found["CLIENT_CERTIFICATE_PATH"]
            return CertificateCredential(tenant, client, path, **options), client
        managed = ManagedIdentityCredential(client_id=client or None, **options)
        return managed, client or "managed-identity"


def _suits(key: KeyVaultKey) -> None:
    """Raise ``L1Error`` for a key of another kind: nobody refused, it just cannot serve."""
    jwk: Any = key.key
    bits = len(jwk.n or b"") * 8
    operations = {_word(one) for one in key.key_operations}
    if not _word(key.key_type).startswith("RSA") or bits < BITS_MIN:
        raise L1Error(
            L1State.UNREACHABLE, "the key is of another kind: it has to be RSA, 2048 bits"
        )
    if not {"wrapKey", "unwrapKey"} <= operations:
        raise L1Error(L1State.UNREACHABLE, "the key's operations lack wrapKey or unwrapKey")


def _word(value: Any) -> str:
    """The vault's word, which the SDK makes an enumeration where it knows it."""
    return str(getattr(value, "value", value))
