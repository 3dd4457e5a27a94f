"""Google Cloud KMS over gRPC, on the SDK's own message types, as strict as the real one: bearer
tokens that a service account signed, versions with states, associated data and CRC32C both ways.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from concurrent import futures
from email.utils import formatdate
from pathlib import Path
from typing import Any

import google_crc32c
import grpc
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.auth import jwt
from google.cloud import kms_v1
from google.rpc import status_pb2
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status
from kcm_core.providers.state import L1State

from tests.l1.servers import tls
from tests.l1.servers.web import DELAY_S, SKEW_S
from tests.l1.stand import Files, Trouble

RING = "projects/kcm-test/locations/europe-west3/keyRings/ring"
KEY, OTHER, SIGNING = (f"{RING}/cryptoKeys/{name}" for name in ("root", "other", "signing"))
ACCOUNT = "core@kcm-test.iam.gserviceaccount.com"
SERVICE = "google.cloud.kms.v1.KeyManagementService"

WORDS = {
    L1State.DISABLED: "DISABLED",
    L1State.PENDING_DELETION: "DESTROY_SCHEDULED",
    L1State.DELETED: "DESTROYED",
}


class Google:
    """One project with a key of two versions, another one, and one that signs."""

    def __init__(self, files: Files, directory: Path) -> None:
        self.files, self.directory = files, directory
        self.keys = {name: [AESGCM(os.urandom(32))] for name in (KEY, OTHER)}
        self.keys[KEY].append(AESGCM(os.urandom(32)))
        self.account = rsa.generate_private_key(65537, 2048)
        self.forever = threading.Event()

    def encrypt(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._begin("encrypt", context)
        key, _, number = request.name.partition("/cryptoKeyVersions/")
        versions = self._versions(key, context)
        used = int(number) if number else len(versions)
        if used > len(versions):
            context.abort(grpc.StatusCode.NOT_FOUND, f"CryptoKeyVersion {request.name} not found.")
        self._serves(key, used, context)
        aad = request.additional_authenticated_data
        self._intact(request.plaintext, request.plaintext_crc32c, context)
        self._intact(aad, request.additional_authenticated_data_crc32c, context)
        nonce = os.urandom(12)
        sealed = bytes([used]) + nonce + versions[used - 1].encrypt(nonce, request.plaintext, aad)
        return kms_v1.EncryptResponse(
            name=f"{key}/cryptoKeyVersions/{used}",
            ciphertext=self._perhaps_corrupt(sealed),
            ciphertext_crc32c=google_crc32c.value(sealed),
            verified_plaintext_crc32c=request.plaintext_crc32c is not None,
            verified_additional_authenticated_data_crc32c=(
                request.additional_authenticated_data_crc32c is not None
            ),
        )

    def decrypt(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._begin("decrypt", context)
        versions, sealed = self._versions(request.name, context), request.ciphertext
        aad = request.additional_authenticated_data
        self._intact(sealed, request.ciphertext_crc32c, context)
        self._intact(aad, request.additional_authenticated_data_crc32c, context)
        used = sealed[0] if sealed else 0
        if not 1 <= used <= len(versions):
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, "Decryption failed: the ciphertext is invalid."
            )
        self._serves(request.name, used, context)
        try:
            plaintext = versions[used - 1].decrypt(sealed[1:13], sealed[13:], aad)
        except (InvalidTag, ValueError):
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                "Decryption failed: verify that 'name' refers to the correct CryptoKey.",
            )
        if self.files.trouble is Trouble.ENDLESS:
            return kms_v1.DecryptResponse(plaintext=bytes(64 << 20))
        return kms_v1.DecryptResponse(
            plaintext=self._perhaps_corrupt(plaintext),
            plaintext_crc32c=google_crc32c.value(plaintext),
            used_primary=used == len(versions),
        )

    def get_crypto_key(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._begin("get_crypto_key", context)
        number = len(self._versions(request.name, context))
        self._serves(request.name, number, context)
        purpose = kms_v1.CryptoKey.CryptoKeyPurpose.ENCRYPT_DECRYPT
        return kms_v1.CryptoKey(
            name=request.name, purpose=purpose, primary=_version(request.name, number)
        )

    def get_crypto_key_version(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._begin("get_crypto_key_version", context)
        key, _, number = request.name.partition("/cryptoKeyVersions/")
        if int(number) > len(self._versions(key, context)):
            context.abort(grpc.StatusCode.NOT_FOUND, f"{request.name} not found.")
        self._serves(key, int(number), context)
        return _version(key, int(number))

    def _begin(self, operation: str, context: grpc.ServicerContext) -> None:
        self.files.called(operation)
        match self.files.trouble:
            case Trouble.HANG:
                self.forever.wait()
            case Trouble.DELAY:
                time.sleep(DELAY_S)
            case Trouble.UNAVAILABLE:
                context.abort(grpc.StatusCode.UNAVAILABLE, "The service is currently unavailable.")
            case Trouble.RESET:
                context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
            case Trouble.THROTTLE:
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Quota exceeded")
            case Trouble.SKEW:
                date = formatdate(time.time() + SKEW_S, usegmt=True)
                context.set_trailing_metadata((("date", date),))
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "Request had invalid credentials.")
        self._authenticated(context)

    def _authenticated(self, context: grpc.ServicerContext) -> None:
        given = dict(context.invocation_metadata()).get("authorization", "")
        kind, _, token = str(given).partition(" ")
        public = self.account.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        try:
            claims = jwt.decode(token, certs=public) if kind == "Bearer" else {}
        except Exception:  # noqa: BLE001 - whatever is no token of ours
            claims = {}
        if claims.get("iss") != ACCOUNT or claims.get("exp", 0) < time.time():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "Request had invalid credentials.")

    def _versions(self, key: str, context: grpc.ServicerContext) -> list[AESGCM]:
        if key == SIGNING:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "The key's purpose is ASYMMETRIC_SIGN")
        if key not in self.keys:
            context.abort(grpc.StatusCode.NOT_FOUND, f"CryptoKey {key} not found.")
        return self.keys[key]

    def _serves(self, key: str, number: int, context: grpc.ServicerContext) -> None:
        state = self.files.state if key == KEY else L1State.ENABLED
        if state is L1State.FORBIDDEN:
            context.abort_with_status(denied(key, "IAM_PERMISSION_DENIED"))
        if state is L1State.UNREACHABLE:
            context.abort(grpc.StatusCode.INTERNAL, "internal")
        if state in WORDS:
            context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"{key}/cryptoKeyVersions/{number} is not enabled, "
                f"current state is: {WORDS[state]}.",
            )

    @staticmethod
    def _intact(data: bytes, crc: int | None, context: grpc.ServicerContext) -> None:
        if crc is None or google_crc32c.value(data) != crc:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "The checksum did not match the data")

    def _perhaps_corrupt(self, data: bytes) -> bytes:
        if self.files.trouble is Trouble.CORRUPT:
            return data[:-1] + bytes([data[-1] ^ 1])
        return data

    def key_file(self) -> Path:
        """A service account's key file, as Google gives it out."""
        path = self.directory / "account.json"
        pem = self.account.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        path.write_text(
            json.dumps(
                {
                    "type": "service_account",
                    "project_id": "kcm-test",
                    "private_key_id": "1",
                    "private_key": pem.decode(),
                    "client_email": ACCOUNT,
                    "client_id": "1",
                    "token_uri": "https://127.0.0.1:1/token",
                }
            )
        )
        return path


def denied(key: str, reason: str) -> grpc.Status:
    """A denied permission as Google says it, with the reason among the details."""
    said = status_pb2.Status(
        code=grpc.StatusCode.PERMISSION_DENIED.value[0],
        message=f"Permission 'cloudkms.cryptoKeyVersions.useToDecrypt' denied on resource '{key}' "
        "(or it may not exist).",
    )
    said.details.add().Pack(ErrorInfo(reason=reason, domain="cloudkms.googleapis.com"))
    return rpc_status.to_status(said)


def _version(key: str, number: int) -> kms_v1.CryptoKeyVersion:
    return kms_v1.CryptoKeyVersion(
        name=f"{key}/cryptoKeyVersions/{number}",
        state=kms_v1.CryptoKeyVersion.CryptoKeyVersionState.ENABLED,
        protection_level=kms_v1.ProtectionLevel.SOFTWARE,
    )


def _handlers(google: Google) -> grpc.GenericRpcHandler:
    def unary(serve: Any, asked: Any, answered: Any) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(
            serve, request_deserializer=asked.deserialize, response_serializer=answered.serialize
        )

    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "Encrypt": unary(google.encrypt, kms_v1.EncryptRequest, kms_v1.EncryptResponse),
            "Decrypt": unary(google.decrypt, kms_v1.DecryptRequest, kms_v1.DecryptResponse),
            "GetCryptoKey": unary(
                google.get_crypto_key, kms_v1.GetCryptoKeyRequest, kms_v1.CryptoKey
            ),
            "GetCryptoKeyVersion": unary(
                google.get_crypto_key_version,
                kms_v1.GetCryptoKeyVersionRequest,
                kms_v1.CryptoKeyVersion,
            ),
        },
    )


def main(directory: Path) -> None:
    files = Files(directory)
    google = Google(files, directory)
    _, certificate, key = tls.make(directory)
    server = grpc.server(futures.ThreadPoolExecutor(32))
    server.add_generic_rpc_handlers((_handlers(google),))
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    port = server.add_secure_port(f"{tls.HOST}:0", credentials)
    server.start()
    tail = f"endpoint={tls.HOST}:{port}&ca=file:{directory / 'ca.pem'}"
    (directory / "other").write_text(f"gcpkms:{OTHER}?{tail}")
    (directory / "signing").write_text(f"gcpkms:{SIGNING}?{tail}")
    (directory / "nothing").write_text(f"gcpkms:{RING}/cryptoKeys/nothing?{tail}")
    (directory / "pinned").write_text(f"gcpkms:{KEY}/cryptoKeyVersions/1?{tail}")
    credentials_of_ours = {
        "GOOGLE_APPLICATION_CREDENTIALS": str(google.key_file()),
        "KCM_L1_ENDPOINTS": f"{tls.HOST}:{port}",
    }
    files.ready(f"gcpkms:{KEY}?{tail}", credentials_of_ours)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ended.wait()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
