"""A key in Google Cloud KMS.

The context is the additional authenticated data. The SDK verifies no checksum by itself: CRC32C is
sent with all data, and required in all answers, so that a bit error in transit is ``invalid`` and
not a lost key. One call for each operation: the SDK's retry is switched off (it would continue for
46 seconds whatever the timeout), and a call has its own bound.

``Decrypt`` does not return the version that it used, so the blob begins with the number that
``Encrypt`` returned, and with a checksum of the whole.

The token is fetched once, before and separately from any use of a key. gRPC's own plug-in would
fetch it in a thread, where its failures look like Google's, and would look up in another thread
from where it may be used.

Credentials belong to one universe: Google's own, or a sovereign cloud's with other domain names.
The service belongs to the same universe. A proxy of the environment is used for both.
"""

from __future__ import annotations

import hashlib
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.request import getproxies, proxy_bypass

import google.auth
import google.oauth2.credentials
import google.oauth2.service_account
import google_crc32c
import grpc
from google.auth.transport.requests import Request
from google.cloud import kms_v1
from google.cloud.kms_v1.services.key_management_service.transports import (
    KeyManagementServiceGrpcTransport,
)

from kcm_core.providers.credentials import fetching
from kcm_core.providers.gcp_kms.errors import translated
from kcm_core.providers.gcp_kms.uri import GcpKmsUri
from kcm_core.providers.port import UnwrapResult, WrapResult, unknown_mechanism
from kcm_core.providers.state import L1Error, L1State

MECHANISM: Final = "google-kms"
"""The blob is the version's number (u32), 8 bytes of SHA-256 over number and ciphertext, and
Google's ciphertext."""

CALL_S: Final = 5.0
"""Seconds for one call."""

SERVICE: Final = "cloudkms"
"""The service's name in a universe: ``googleapis.com``, or a sovereign cloud's domain."""

SCOPES: Final = ("https://www.googleapis.com/auth/cloudkms",)

_HEAD: Final = struct.Struct(">I8s")

_Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Own:
    """The Core's own credentials: a call's metadata, the principal, and the universe."""

    metadata: _Metadata
    principal: str
    universe: str


class GcpKmsProvider:
    """The key that a ``gcpkms:`` URI names."""

    def __init__(self, uri: GcpKmsUri) -> None:
        self._uri = uri

    def wrap(self, plaintext: bytes | bytearray | memoryview, context: bytes) -> WrapResult:
        """Wrap with the URI's version, or the primary one."""
        uri, data = self._uri, bytes(plaintext)
        pinned = f"/cryptoKeyVersions/{uri.version}" if uri.version else ""
        own = _own()
        with translated():
            made = self._client(own.universe).encrypt(
                request=kms_v1.EncryptRequest(
                    name=uri.key + pinned,
                    plaintext=data,
                    plaintext_crc32c=_crc(data),
                    additional_authenticated_data=context,
                    additional_authenticated_data_crc32c=_crc(context),
                ),
                retry=None,
                timeout=CALL_S,
                metadata=own.metadata,
            )
        if not (
            made.verified_plaintext_crc32c
            and made.verified_additional_authenticated_data_crc32c
            and made.ciphertext_crc32c == _crc(made.ciphertext)
        ):
            raise _garbled()
        number = _number(made.name, uri.key)
        blob = _HEAD.pack(number, _check(number, made.ciphertext)) + made.ciphertext
        return WrapResult(blob, MECHANISM, str(number), own.principal)

    def unwrap(self, blob: bytes, context: bytes, mechanism: str) -> UnwrapResult:
        """Unwrap a blob of ``wrap``."""
        if mechanism != MECHANISM:
            raise unknown_mechanism()
        sealed = blob[_HEAD.size :]
        if not sealed:
            raise L1Error(L1State.INVALID, "the blob is too short")
        number, check = _HEAD.unpack_from(blob)
        if check != _check(number, sealed):
            raise L1Error(L1State.INVALID, "the blob was changed")
        own = _own()
        with translated(opening=True):
            made = self._client(own.universe).decrypt(
                request=kms_v1.DecryptRequest(
                    name=self._uri.key,
                    ciphertext=sealed,
                    ciphertext_crc32c=_crc(sealed),
                    additional_authenticated_data=context,
                    additional_authenticated_data_crc32c=_crc(context),
                ),
                retry=None,
                timeout=CALL_S,
                metadata=own.metadata,
            )
        if made.plaintext_crc32c != _crc(made.plaintext):
            raise _garbled()
        return UnwrapResult(made.plaintext, str(number), own.principal)

    def facts(self) -> dict[str, str]:
        """Return Google's description of the key, and of the version that wraps."""
        uri = self._uri
        own = _own()
        call: dict[str, Any] = {"retry": None, "timeout": CALL_S, "metadata": own.metadata}
        with translated():
            client = self._client(own.universe)
            key = client.get_crypto_key(request=kms_v1.GetCryptoKeyRequest(name=uri.key), **call)
            version = key.primary
            if uri.version:
                name = f"{uri.key}/cryptoKeyVersions/{uri.version}"
                pinned = kms_v1.GetCryptoKeyVersionRequest(name=name)
                version = client.get_crypto_key_version(request=pinned, **call)
        return {
            "purpose": key.purpose.name,
            "state": version.state.name,
            "imported": str(bool(version.import_job)).lower(),
            "protectionLevel": version.protection_level.name,
        }

    def _client(self, universe: str) -> kms_v1.KeyManagementServiceClient:
        """Return a client with its own connection, and without credentials."""
        roots = None if self._uri.ca is None else Path(self._uri.ca).read_bytes()
        host = self._uri.endpoint or f"{SERVICE}.{universe}"
        channel = grpc.secure_channel(
            host, grpc.ssl_channel_credentials(root_certificates=roots), options=_way_to(host)
        )
        transport = KeyManagementServiceGrpcTransport(channel=channel)
        return kms_v1.KeyManagementServiceClient(transport=transport)


def _way_to(host: str) -> list[tuple[str, int | str]]:
    """Return the proxy of the environment; gRPC itself reads only lower-case variables."""
    proxies = getproxies()
    proxy = proxies.get("https") or proxies.get("all")
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if not proxy or proxy_bypass(name.strip("[]")):
        return [("grpc.enable_http_proxy", 0)]
    return [("grpc.http_proxy", proxy)]


def _own() -> _Own:
    """Fetch the Core's own credentials; raises ``L1Error`` (unreachable)."""
    with fetching():
        credentials: Any
        credentials, _ = google.auth.default(scopes=SCOPES)
        if hasattr(credentials, "with_always_use_jwt_access"):
            # A service account's own signature is enough: no token has to be fetched.
            credentials = credentials.with_always_use_jwt_access(True)
        credentials.refresh(Request())
        headers: dict[str, str] = {}
        credentials.apply(headers)
        metadata = tuple((name.lower(), value) for name, value in headers.items())
        return _Own(metadata, principal_name(credentials), credentials.universe_domain)


def principal_name(credentials: Any) -> str:
    """Return the account's address, which a machine's credentials have after a refresh.

    A workload identity of a pool and a person have none: two of them may look the same, and
    attestations are valid for every principal of the same name. So their name includes the host.
    """
    address = getattr(credentials, "service_account_email", None)
    if address:
        return str(address)
    pool = getattr(credentials, "info", {}).get("audience", "no-address")
    return f"{pool}@{socket.gethostname()}"


def _crc(data: bytes) -> int:
    return int(google_crc32c.value(data))


def _check(number: int, sealed: bytes) -> bytes:
    return hashlib.sha256(number.to_bytes(4, "big") + sealed).digest()[:8]


def _number(name: str, key: str) -> int:
    """Return the number of the version that was used; it must belong to the named key."""
    prefix = f"{key}/cryptoKeyVersions/"
    tail = name.removeprefix(prefix)
    if not name.startswith(prefix) or not tail.isdecimal():
        raise L1Error(L1State.INVALID, "another key was used than the named one")
    return int(tail)


def _garbled() -> L1Error:
    return L1Error(L1State.INVALID, "a checksum does not match: data was corrupted in transit")
