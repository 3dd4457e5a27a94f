"""Azure Key Vault and its token endpoint, as strict as the real ones: challenge, tokens, versions,
operations that a key allows, attributes, and Azure's own errors with their inner codes.
"""

from __future__ import annotations

import base64
import json
import secrets
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from kcm_core.providers.state import L1State

from tests.l1.servers.web import Answer, Asked, run
from tests.l1.stand import Files, Trouble

TENANT, CLIENT = "11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-000000000000"
OBJECT = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
SECRET = "kcm-test-secret"
CLUSTER_TOKEN = "a-token-of-a-cluster"
RESOURCE = "https://vault.azure.net"
API = ("7.4", "7.5", "7.6", "2025-07-01")
KEYS = ("root", "other", "elliptic", "signing", "unreadable")
OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


class Refusal(Exception):
    """An error in Azure's words."""

    def __init__(self, status: int, code: str, inner: str = "", **headers: str) -> None:
        super().__init__(code)
        self.answer = _json(
            status,
            {"error": {"code": code, "message": "no", "innererror": {"code": inner or code}}},
            headers,
        )


@dataclass(slots=True)
class Key:
    """A key with its versions, the newest one last."""

    name: str
    versions: dict[str, Any] = field(default_factory=dict)
    operations: tuple[str, ...] = ("wrapKey", "unwrapKey")
    readable: bool = True
    """Whether the caller has the right to read the key: it is not part of the right to unwrap."""

    def rotate(self, material: Any = None) -> None:
        made = material or rsa.generate_private_key(65537, 2048)
        self.versions[secrets.token_hex(16)] = made


class Vault:
    """One vault."""

    def __init__(self, files: Files, directory: Path) -> None:
        self.files, self.directory = files, directory
        self.port = 0
        self.tokens: dict[str, float] = {}
        self.keys = {name: Key(name) for name in KEYS}
        for name, key in self.keys.items():
            key.rotate(ec.generate_private_key(ec.SECP256R1()) if name == "elliptic" else None)
        self.keys["signing"].operations = ("sign", "verify")
        self.keys["unreadable"].readable = False

    def serve(self, asked: Asked) -> Answer:
        path, _, raw = asked.path.partition("?")
        parts = path.strip("/").split("/")
        try:
            if parts[0] == TENANT:
                return self._identity(asked, parts)
            operation = parts[3] if len(parts) > 3 else "get"
            # The SDK asks without a token first, to be told where to get one.
            known = "" if asked.headers.get("authorization") else "-unauthenticated"
            self.files.called(operation + known)
            self._troubled(signed=not known)
            self._authenticated(asked)
            if parse_qs(raw).get("api-version", [""])[0] not in API:
                raise Refusal(400, "BadParameter")
            return self._key(asked, parts, operation)
        except Refusal as error:
            return error.answer

    def _identity(self, asked: Asked, parts: list[str]) -> Answer:
        base = f"https://127.0.0.1:{self.port}/{TENANT}"
        if parts[-1] == "openid-configuration":
            return _json(
                200,
                {
                    "issuer": f"{base}/v2.0",
                    "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                    "token_endpoint": f"{base}/oauth2/v2.0/token",
                },
            )
        form = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
        known = form.get("client_secret") == SECRET or form.get("client_assertion") == CLUSTER_TOKEN
        wrong = form.get("client_id") != CLIENT or not known
        if wrong or form.get("grant_type") != "client_credentials":
            return _json(401, {"error": "invalid_client", "error_description": "AADSTS7000215"})
        claims = _padded(json.dumps({"oid": OBJECT, "appid": CLIENT}).encode())
        token = f"{_padded(b'{}')}.{claims}.{secrets.token_urlsafe(32)}"
        self.tokens[token] = time.time() + 3600
        return _json(200, {"token_type": "Bearer", "expires_in": 3600, "access_token": token})

    def _troubled(self, *, signed: bool) -> None:
        match self.files.trouble:
            case Trouble.UNAVAILABLE:
                raise Refusal(503, "ServiceUnavailable")
            case Trouble.THROTTLE:
                raise Refusal(429, "Throttled", **{"Retry-After": "1"})
            case Trouble.SKEW if signed:
                raise Refusal(401, "Unauthorized")

    def _authenticated(self, asked: Asked) -> None:
        kind, _, token = asked.headers.get("authorization", "").partition(" ")
        if kind == "Bearer" and self.tokens.get(token, 0.0) > time.time():
            return
        where = f"https://127.0.0.1:{self.port}/{TENANT}"
        challenge = f'Bearer authorization="{where}", resource="{RESOURCE}"'
        raise Refusal(401, "Unauthorized", **{"WWW-Authenticate": challenge})

    def _key(self, asked: Asked, parts: list[str], operation: str) -> Answer:
        key = self.keys.get(parts[1])
        state = self.files.state if parts[1] == "root" else L1State.ENABLED
        self._allowed(key, state, operation)
        assert key is not None
        if operation == "get" and not key.readable:
            raise Refusal(403, "Forbidden", "ForbiddenByRbac")
        version = parts[2] if len(parts) > 2 and parts[2] else list(key.versions)[-1]
        material = key.versions.get(version)
        if material is None:
            raise Refusal(404, "KeyNotFound")
        name = f"https://127.0.0.1:{self.port}/keys/{key.name}/{version}"
        if operation == "get":
            return _json(200, _described(key, material, name, enabled=state is L1State.ENABLED))
        body = json.loads(asked.body)
        if operation == "rotate":
            key.rotate()
            return _json(200, {})
        if {"wrapkey": "wrapKey", "unwrapkey": "unwrapKey"}.get(operation) not in key.operations:
            raise Refusal(403, "Forbidden", "KeyOperationForbidden")
        if body.get("alg") != "RSA-OAEP-256":
            raise Refusal(400, "BadParameter")
        given = _unpadded(body["value"])
        try:
            done = (
                material.public_key().encrypt(given, OAEP)
                if operation == "wrapkey"
                else material.decrypt(given, OAEP)
            )
        except ValueError:
            raise Refusal(400, "BadParameter") from None
        if self.files.trouble is Trouble.CORRUPT:
            done = done[:-1] + bytes([done[-1] ^ 1])
        return _json(200, {"kid": name, "value": _padded(done)})

    def _allowed(self, key: Key | None, state: L1State, operation: str) -> None:
        if key is None or state is L1State.DELETED:
            raise Refusal(404, "KeyNotFound")
        match state:
            case L1State.PENDING_DELETION:
                raise Refusal(409, "Conflict", "ObjectIsDeletedButRecoverable")
            case L1State.FORBIDDEN:
                raise Refusal(403, "Forbidden", "ForbiddenByRbac")
            case L1State.UNREACHABLE:
                raise Refusal(500, "InternalServerError")
            case L1State.DISABLED if operation != "get":
                raise Refusal(403, "Forbidden", "KeyDisabled")


def _described(key: Key, material: Any, name: str, *, enabled: bool) -> dict[str, Any]:
    public = material.public_key().public_numbers()
    if isinstance(public, rsa.RSAPublicNumbers):
        jwk = {"kty": "RSA", "n": _padded(_bytes(public.n)), "e": _padded(_bytes(public.e))}
    else:
        jwk = {
            "kty": "EC",
            "crv": "P-256",
            "x": _padded(_bytes(public.x)),
            "y": _padded(_bytes(public.y)),
        }
    return {
        "key": {"kid": name, "key_ops": list(key.operations), **jwk},
        "attributes": {
            "enabled": enabled,
            "created": 1,
            "updated": 1,
            "recoveryLevel": "Recoverable",
        },
    }


def _bytes(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _padded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _json(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> Answer:
    return Answer(
        status, json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})}
    )


def main(directory: Path) -> None:
    files = Files(directory)
    vault = Vault(files, directory)

    def ready(port: int) -> None:
        vault.port = port
        place = f"127.0.0.1:{port}"
        tail = f"ca=file:{directory / 'ca.pem'}&authority={place}"
        for name in (*KEYS[1:], "nothing"):
            (directory / name).write_text(f"azurekv:{place}/{name}?{tail}")
        version = next(iter(vault.keys["root"].versions))
        (directory / "pinned").write_text(f"azurekv:{place}/root/{version}?{tail}")
        credentials = {
            "AZURE_TENANT_ID": TENANT,
            "AZURE_CLIENT_ID": CLIENT,
            "AZURE_CLIENT_SECRET": SECRET,
            "KCM_L1_ENDPOINTS": place,
        }
        files.ready(f"azurekv:{place}/root?{tail}", credentials)

    run(directory, files, vault.serve, ready)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
