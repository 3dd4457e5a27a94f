"""A key in Google Cloud KMS.

The context is the additional authenticated data. The SDK verifies no checksum by itself: CRC32C
goes along with everything that is sent, and is demanded of everything that comes back, so a bit
that was lost on the way is ``invalid`` and not a lost key. One call for each operation: the SDK's
own retry is switched off (it would go on for 46 seconds whatever the timeout), and a call has a
bound of its own.

``Decrypt`` does not say which version it used, so the blob begins with the number that ``Encrypt``
named, and with a checksum of the whole.

The token is fetched once, before and apart from any use of a key. gRPC's own plug-in for it would
fetch it in a thread, where its failures look like Google's, and look up in another one from where
it may be used.
"""

from __future__ import annotations

import hashlib
import socket
import struct
from pathlib import Path
from typing import Any, Final

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

from kcm_core.l1.credentials import fetching
from kcm_core.l1.gcpkms_errors import translated
from kcm_core.l1.gcpkms_uri import GcpKmsUri
from kcm_core.l1.port import Opened, WrapResult, unknown_mechanism
from kcm_core.l1.state import L1Error, L1State

MECHANISM: Final = "google-kms"
"""The blob is the version's number (u32), 8 bytes of SHA-256 over number and ciphertext, and
Google's ciphertext."""

CALL_S: Final = 5.0
"""Seconds for one call."""

HOST: Final = "cloudkms.googleapis.com:443"
SCOPES: Final = ("https://www.googleapis.com/auth/cloudkms",)

_HEAD: Final = struct.Struct(">I8s")

_Metadata = tuple[tuple[str, str], ...]


class GcpKmsProvider:
    """The key that a ``gcpkms:`` URI names."""

    def __init__(self, uri: GcpKmsUri) -> None:
        self._uri = uri

    def wrap(self, plaintext: bytes | bytearray | memoryview, context: bytes) -> WrapResult:
        """Wrap with the URI's version, else the primary one."""
        uri, data = self._uri, bytes(plaintext)
        pinned = f"/cryptoKeyVersions/{uri.version}" if uri.version else ""
        asks, principal = _own()
        with translated():
            made = self._client().encrypt(
                request=kms_v1.EncryptRequest(
                    name=uri.key + pinned,
                    plaintext=data,
                    plaintext_crc32c=_crc(data),
                    additional_authenticated_data=context,
                    additional_authenticated_data_crc32c=_crc(context),
                ),
                retry=None,
                timeout=CALL_S,
                metadata=asks,
            )
        if not (
            made.verified_plaintext_crc32c
            and made.verified_additional_authenticated_data_crc32c
            and made.ciphertext_crc32c == _crc(made.ciphertext)
        ):
            raise _garbled()
        number = _number(made.name, uri.key)
        blob = _HEAD.pack(number, _check(number, made.ciphertext)) + made.ciphertext
        return WrapResult(blob, MECHANISM, str(number), principal)

    def unwrap(self, blob: bytes, context: bytes, mechanism: str) -> Opened:
        """Open what ``wrap`` made."""
        if mechanism != MECHANISM:
            raise unknown_mechanism()
        sealed = blob[_HEAD.size :]
        if not sealed:
            raise L1Error(L1State.INVALID, "the blob is too short")
        number, check = _HEAD.unpack_from(blob)
        if check != _check(number, sealed):
            raise L1Error(L1State.INVALID, "the blob was changed")
        asks, principal = _own()
        with translated(opening=True):
            made = self._client().decrypt(
                request=kms_v1.DecryptRequest(
                    name=self._uri.key,
                    ciphertext=sealed,
                    ciphertext_crc32c=_crc(sealed),
                    additional_authenticated_data=context,
                    additional_authenticated_data_crc32c=_crc(context),
                ),
                retry=None,
                timeout=CALL_S,
                metadata=asks,
            )
        if made.plaintext_crc32c != _crc(made.plaintext):
            raise _garbled()
        return Opened(made.plaintext, str(number), principal)

    def facts(self) -> dict[str, str]:
        """What Google says of the key, and of the version that wraps."""
        uri = self._uri
        asks, _ = _own()
        call: dict[str, Any] = {"retry": None, "timeout": CALL_S, "metadata": asks}
        with translated():
            client = self._client()
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

    def _client(self) -> kms_v1.KeyManagementServiceClient:
        """A client on a connection of its own, with no credentials of its own."""
        roots = None if self._uri.ca is None else Path(self._uri.ca).read_bytes()
        channel = grpc.secure_channel(
            self._uri.endpoint or HOST, grpc.ssl_channel_credentials(root_certificates=roots)
        )
        transport = KeyManagementServiceGrpcTransport(channel=channel)
        return kms_v1.KeyManagementServiceClient(transport=transport)


def _own() -> tuple[_Metadata, str]:
    """The Core's own credentials, as a call's metadata, and in whose name it asks."""
    with fetching():
        credentials: Any
        credentials, _ = google.auth.default(scopes=SCOPES)
        if hasattr(credentials, "with_always_use_jwt_access"):
            # A service account's own signature is enough: no token has to be fetched for it.
            credentials = credentials.with_always_use_jwt_access(True)
        credentials.refresh(Request())
        headers: dict[str, str] = {}
        credentials.apply(headers)
        return tuple((name.lower(), value) for name, value in headers.items()), _name(credentials)


def _name(credentials: Any) -> str:
    """The account's address, which a machine's credentials know by now.

    Whoever acts for itself in a pool, or is a person, has none: two of them may look the same, and
    proofs serve whoever has the same name. So their name is one for each host.
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
    """The number of the version that was used; it has to be one of the key that was named."""
    prefix = f"{key}/cryptoKeyVersions/"
    tail = name.removeprefix(prefix)
    if not name.startswith(prefix) or not tail.isdecimal():
        raise L1Error(L1State.INVALID, "another key was used than the one that was named")
    return int(tail)


def _garbled() -> L1Error:
    return L1Error(L1State.INVALID, "a checksum does not hold: something was lost on the way")
