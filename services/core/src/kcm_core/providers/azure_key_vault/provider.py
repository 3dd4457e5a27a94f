"""A key in Azure Key Vault: RSA-OAEP with SHA-256 only.

Only ``unwrapKey`` proves that a key is enabled: the SDK wraps locally with the public half, even if
the key was disabled long ago. OAEP authenticates no context; the nested blob does.

A vault unwraps only with the version that wrapped, so the blob begins with its name. Retries are
switched off for the vault and for tokens, redirects too, and every request has its own bounds.

Unwrapping is one request on the SDK's own pipeline: its cryptography client would read the key
first, and would accept any private half in the answer.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import re
import socket
from typing import Any, Final
from urllib.parse import urlsplit

from azure.core.credentials import AccessToken, TokenCredential
from azure.core.exceptions import AzureError, ResourceNotFoundError
from azure.core.rest import HttpRequest
from azure.identity import (
    CertificateCredential,
    ClientSecretCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)
from azure.keyvault.keys import KeyClient, KeyVaultKey
from azure.keyvault.keys.crypto import CryptographyClient, KeyWrapAlgorithm

from kcm_core.providers.azure_key_vault.errors import of, translated
from kcm_core.providers.azure_key_vault.uri import AUTHORITY, LOGINS, PUBLIC, AzureKvUri
from kcm_core.providers.credentials import fetching
from kcm_core.providers.port import UnwrapResult, WrapResult, unknown_mechanism
from kcm_core.providers.state import L1Error, L1State

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
    """Fill Python's caches before the fork, so that no child has to.

    They take most of a first request's time. Two requests are sent to port 1 of the loopback, where
    no server listens, and fail.
    """
    nowhere = AzureKvUri(vault="127.0.0.1:1", key="x", authority="127.0.0.1:1")
    provider = AzureKvProvider(nowhere, use_env_settings=False)  # and without a proxy
    options = provider._options()  # noqa: SLF001 - our own
    credential = _Own(
        ClientSecretCredential(
            "00000000-0000-0000-0000-000000000000", "x", "x", authority="127.0.0.1:1",
            disable_instance_discovery=True, **options,
        )
    )  # fmt: skip
    vault = provider._vault(credential)  # noqa: SLF001 - our own
    for request in (
        lambda: credential.get_token("https://vault.azure.net/.default"),
        lambda: provider._unwrap(vault, "x", b"x"),  # noqa: SLF001 - our own
    ):
        with contextlib.suppress(Exception):
            request()


class AzureKvProvider:
    """The key that an ``azurekv:`` URI names."""

    def __init__(self, uri: AzureKvUri, **transport: Any) -> None:
        self._uri = uri
        self._transport = transport

    def wrap(self, plaintext: bytes | bytearray | memoryview, context: bytes) -> WrapResult:
        """Wrap with the URI's version, or the newest one. ``context`` is bound elsewhere."""
        del context
        own = self._credential()
        with translated():
            with self._vault(own) as client:
                key = client.get_key(self._uri.key, self._uri.version)
            _suits(key)
            version = str(key.properties.version)
            with CryptographyClient(key, own, **self._options()) as cipher:
                sealed = cipher.wrap_key(_ALGORITHM, bytes(plaintext)).encrypted_key
        return WrapResult(version.encode("ascii") + sealed, MECHANISM, version, own.name)

    def unwrap(self, blob: bytes, context: bytes, mechanism: str) -> UnwrapResult:
        """Unwrap a blob of ``wrap``, with the version that wrapped it."""
        del context
        if mechanism != MECHANISM:
            raise unknown_mechanism()
        head, sealed = blob[:_VERSION_SIZE], blob[_VERSION_SIZE:]
        if _VERSION.fullmatch(head) is None or not sealed:
            raise L1Error(L1State.INVALID, "the blob does not name a version of the key")
        version = head.decode("ascii")
        own = self._credential()
        with translated(), self._vault(own) as client:
            try:
                opened = self._unwrap(client, version, sealed)
            except AzureError as error:
                if self._lacks(error, client):
                    hint = "the key never had the version that the blob names"
                    raise L1Error(L1State.INVALID, hint) from None
                raise of(error, unwrapping=True) from None
        return UnwrapResult(opened, version, own.name)

    def facts(self) -> dict[str, str]:
        """Return the vault's description of the URI's version, or of the newest one."""
        with translated(), self._vault(self._credential()) as client:
            key = client.get_key(self._uri.key, self._uri.version)
        operations = {_word(one) for one in key.key_operations}
        kind = _word(key.key_type)
        return {
            "kty": kind,
            "bits": str(_bits(key)),
            "wrapKey": str("wrapKey" in operations).lower(),
            "unwrapKey": str("unwrapKey" in operations).lower(),
            "enabled": str(bool(key.properties.enabled)).lower(),
            "exportable": str(bool(key.properties.exportable)).lower(),
            "protection": "HSM" if kind.endswith("-HSM") else "software",
        }

    def _unwrap(self, client: KeyClient, version: str, sealed: bytes) -> bytes:
        """Send one request of Key Vault's REST API (Microsoft: *Unwrap Key*, 2025-07-01)."""
        path = f"/keys/{self._uri.key}/{version}"
        asked = {"alg": _ALGORITHM.value, "value": _padded(sealed)}
        answer = client.send_request(HttpRequest("POST", f"{path}/unwrapkey", json=asked))
        answer.raise_for_status()
        try:
            told = answer.json()
            name, value = str(told["kid"]), str(told["value"])
            opened = base64.b64decode(value + "=" * (-len(value) % 4), b"-_", validate=True)
        except (KeyError, TypeError, ValueError):
            raise L1Error(L1State.UNREACHABLE, "Key Vault returned an unreadable answer") from None
        if not name.endswith(path):
            raise L1Error(L1State.INVALID, "another key was used than the named one")
        return opened

    def _lacks(self, error: AzureError, client: KeyClient) -> bool:
        """Whether the key exists and only that version does not: a blob can name anything."""
        if getattr(error, "status_code", None) != 404:
            return False
        try:
            client.get_key(self._uri.key)
        except ResourceNotFoundError:
            return False
        except AzureError as failed:  # the right to unwrap does not include the right to read
            hint = "the key or its version is not there, and the vault does not say which"
            raise L1Error(L1State.UNREACHABLE, hint, cls=type(failed).__name__) from None
        return True

    def _vault(self, own: _Own) -> KeyClient:
        return KeyClient(f"https://{self._uri.vault}", own, **self._options())

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "permit_redirects": False,
            "connection_timeout": CONNECT_S,
            "read_timeout": READ_S,
            "retry_total": 0,
            **self._transport,
        }
        if self._uri.ca is not None:
            # A private deployment: its names are not Azure's, and it has its own authority.
            options |= {"connection_verify": self._uri.ca, "verify_challenge_resource": False}
        return options

    def _credential(self) -> _Own:
        options = {k: v for k, v in self._options().items() if k != "verify_challenge_resource"}
        if self._uri.authority is not None:
            options |= {"authority": self._uri.authority, "disable_instance_discovery": True}
        else:
            _same_cloud(self._uri)
        with fetching():
            return _Own(_by_environment(options))


def _same_cloud(uri: AzureKvUri) -> None:
    """Raise ``L1Error`` unless the credentials belong to the vault's cloud.

    The Core's operator decides the cloud of the credentials: a URI must not send them to another.
    """
    ours = urlsplit(os.environ.get(AUTHORITY, "")).hostname or PUBLIC.login
    if uri.cloud is not None and ours in LOGINS and ours != uri.cloud.login:
        hint = f"the vault is in {uri.cloud.name}, and {AUTHORITY} of the unsealer in another cloud"
        raise L1Error(L1State.UNREACHABLE, hint)


class _Own:
    """The Core's own credentials. ``name`` is the principal, once a token was fetched."""

    def __init__(self, credential: TokenCredential) -> None:
        self._credential: Final = credential
        self.name = ""

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        """Fetch a token; raises ``L1Error`` (unreachable) for every error."""
        with fetching():
            token = self._credential.get_token(*scopes, **options)
            self.name = object_of(token.token)
            return token


def _by_environment(options: dict[str, Any]) -> TokenCredential:
    """Return the credential for a secret, a certificate or a cluster's token in the environment.

    Without any of them, it is the machine's identity.
    """
    tenant, client, secret, certificate, token = (
        os.environ.get(f"AZURE_{name}", "")
        for name in (
            "TENANT_ID",
            "CLIENT_ID",
            "CLIENT_SECRET",
            "CLIENT_CERTIFICATE_PATH",
            "FEDERATED_TOKEN_FILE",
        )
    )
    if secret:
        return ClientSecretCredential(tenant, client, secret, **options)
    if certificate:
        return CertificateCredential(tenant, client, certificate, **options)
    if token:
        return WorkloadIdentityCredential(
            tenant_id=tenant, client_id=client, token_file_path=token, **options
        )
    return ManagedIdentityCredential(client_id=client or None, **options)


def object_of(token: str) -> str:
    """Return the principal's object id: role assignments use it, and it is unique.

    Azure signs tokens for itself; here it is only a name, so nothing is verified.
    """
    try:
        claims = token.split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["oid"])
    except (IndexError, KeyError, TypeError, ValueError):
        return f"no-object@{socket.gethostname()}"


def _padded(data: bytes) -> str:
    """Encode as base64 for URLs without padding, as in JSON Web Keys (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def _suits(key: KeyVaultKey) -> None:
    """Raise ``L1Error`` for a key that cannot serve, which is no refusal."""
    operations = {_word(one) for one in key.key_operations}
    if not _word(key.key_type).startswith("RSA") or _bits(key) < BITS_MIN:
        raise L1Error(L1State.UNREACHABLE, "wrong kind of key: it must be RSA, at least 2048 bits")
    if not {"wrapKey", "unwrapKey"} <= operations:
        raise L1Error(L1State.UNREACHABLE, "the key's operations lack wrapKey or unwrapKey")


def _bits(key: KeyVaultKey) -> int:
    jwk: Any = key.key
    return int.from_bytes(jwk.n or b"", "big").bit_length()


def _word(value: Any) -> str:
    """Return the value as text, for which the SDK has an enumeration if it knows it."""
    return str(getattr(value, "value", value))
