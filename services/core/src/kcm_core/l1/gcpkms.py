"""A key in Google Cloud KMS.

The context is the additional authenticated data. The SDK verifies no checksum by itself: CRC32C
goes along with everything that is sent, and is demanded of everything that comes back, so a bit
that was lost on the way is ``invalid`` and not a lost key. One call for each operation: the SDK's
own retry is switched off (it would go on for 46 seconds whatever the timeout), and a call has a
bound of its own.

``Decrypt`` does not say which version it used, so the blob begins with the number that ``Encrypt``
named, and with a checksum of the whole.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any, Final

import google.auth
import google.oauth2.credentials
import google.oauth2.service_account
import google_crc32c
import grpc
from google.auth.transport.grpc import secure_authorized_channel
from google.auth.transport.requests import Request
from google.cloud import kms_v1
from google.cloud.kms_v1.services.key_management_service.transports import (
    KeyManagementServiceGrpcTransport,
)

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


class GcpKmsProvider:
    """The key that a ``gcpkms:`` URI names."""

    def __init__(self, uri: GcpKmsUri) -> None:
        self._uri = uri

    def wrap(self, plaintext: bytes | bytearray | memoryview, context: bytes) -> WrapResult:
        """Wrap with the URI's version, else the primary one."""
        uri, data = self._uri, bytes(plaintext)
        pinned = f"/cryptoKeyVersions/{uri.version}" if uri.version else ""
        with translated():
            client, principal = self._client()
            made = client.encrypt(
                request=kms_v1.EncryptRequest(
                    name=uri.key + pinned,
                    plaintext=data,
                    plaintext_crc32c=_crc(data),
                    additional_authenticated_data=context,
                    additional_authenticated_data_crc32c=_crc(context),
                ),
                retry=None,
                timeout=CALL_S,
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
        with translated(opening=True):
            client, principal = self._client()
            made = client.decrypt(
                request=kms_v1.DecryptRequest(
                    name=self._uri.key,
                    ciphertext=sealed,
                    ciphertext_crc32c=_crc(sealed),
                    additional_authenticated_data=context,
                    additional_authenticated_data_crc32c=_crc(context),
                ),
                retry=None,
                timeout=CALL_S,
            )
        if made.plaintext_crc32c != _crc(made.plaintext):
            raise _garbled()
        return Opened(made.plaintext, str(number), principal)

    def _client(self) -> tuple[kms_v1.KeyManagementServiceClient, str]:
        """A client on a connection of its own, and in whose name it asks."""
        uri = self._uri
        credentials: Any
        credentials, _ = google.auth.default(scopes=SCOPES)
        if hasattr(credentials, "with_always_use_jwt_access"):
            # A service account's own signature is enough: no token has to be fetched for it.
            credentials = credentials.with_always_use_jwt_access(True)
        roots = None if uri.ca is None else Path(uri.ca).read_bytes()
        channel = secure_authorized_channel(  # type: ignore[no-untyped-call]
            credentials,
            Request(),
            uri.endpoint or HOST,
            ssl_credentials=grpc.ssl_channel_credentials(root_certificates=roots),
        )
        transport = KeyManagementServiceGrpcTransport(channel=channel)
        principal = str(getattr(credentials, "service_account_email", "") or "default")
        return kms_v1.KeyManagementServiceClient(transport=transport), principal


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
