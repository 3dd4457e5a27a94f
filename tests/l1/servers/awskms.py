"""AWS KMS and STS, as strict as the real ones: moto's keys and ciphers, and everything it leaves
out.

moto decrypts with keys that are disabled or to be deleted, takes any signature, and reads two
encryption contexts as the same. Here signatures (SigV4), sessions, states, the key that is named,
and the context as a whole are checked, and answers are AWS's own in form and words.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import sys
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

from kcm_core.providers.state import L1State
from moto.kms.models import kms_backends

from tests.l1.servers.web import Answer, Asked, now, run
from tests.l1.stand import Files, Trouble

ACCOUNT = "111122223333"
REGION = "eu-central-1"
ACCESS_KEY, SECRET_KEY = "AKIDKCMTEST00000001", "kcm-test-secret"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/kcm-core"
EXTERNAL_ID = "kcm-external"
WEB_TOKEN = "a-token-of-a-cluster"
SESSION_S = 3600
"""Seconds that a session lasts, as STS has it where nothing is asked for."""

EXPIRED = ("ASIAKCMTESTEXPIRED01", "kcm-expired-secret", "kcm-expired-token")
"""Access key, secret and token of a session that is over."""


class Refusal(Exception):
    """An error in AWS's words."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class Aws:
    """One account with a symmetric key, another one, and a key of the wrong kind."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.backend = kms_backends[ACCOUNT][REGION]
        self.key = self._create("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT")
        self.other = self._create("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT")
        self.signing = self._create("ECC_NIST_P256", "SIGN_VERIFY")
        self.backend.create_alias(self.key.id, "alias/kcm-root")
        self.sessions: dict[str, tuple[str, str, float]] = {EXPIRED[0]: (*EXPIRED[1:], 0.0)}
        """By access key: secret, token, and when it ends."""

    def _create(self, spec: str, usage: str) -> Any:
        return self.backend.create_key(
            policy=None, key_usage=usage, key_spec=spec, description="", tags=[], origin="AWS_KMS"
        )

    def serve(self, asked: Asked) -> Answer:
        target = asked.headers.get("x-amz-target", "")
        operation = (
            target.rpartition(".")[2] or parse_qs(asked.body.decode()).get("Action", [""])[0]
        )
        self.files.called(operation)
        sts = not target
        try:
            self._troubled()
            if operation == "AssumeRoleWithWebIdentity":
                return self._assume_by_token(parse_qs(asked.body.decode()))
            self._authenticated(asked, "sts" if sts else "kms")
            if sts:
                return self._assume(parse_qs(asked.body.decode()))
            body = json.loads(asked.body)
            return _json(200, getattr(self, f"_do_{operation.lower()}")(body))
        except Refusal as error:
            if sts:
                return _xml_error(error)
            return _json(error.status, {"__type": error.code, "message": error.message})

    def _troubled(self) -> None:
        match self.files.trouble:
            case Trouble.UNAVAILABLE:
                raise Refusal(503, "ServiceUnavailable", "Service unavailable")
            case Trouble.THROTTLE:
                raise Refusal(400, "ThrottlingException", "Rate exceeded")

    def _authenticated(self, asked: Asked, service: str) -> None:
        """Check the signature as AWS does (Signature Version 4)."""
        given = asked.headers.get("authorization", "")
        if not given.startswith("AWS4-HMAC-SHA256 "):
            raise Refusal(
                400, "MissingAuthenticationTokenException", "Missing Authentication Token"
            )
        parts = dict(item.strip().split("=", 1) for item in given.split(" ", 1)[1].split(","))
        access, date, region, named, _ = parts["Credential"].split("/")
        if (region, named) != (REGION, service):
            raise Refusal(400, "InvalidSignatureException", "Credential should be scoped")
        secret = SECRET_KEY if access == ACCESS_KEY else ""
        if access in self.sessions:
            secret, token, ends = self.sessions[access]
            if asked.headers.get("x-amz-security-token") != token:
                raise Refusal(400, "UnrecognizedClientException", "The security token is invalid")
            if time.time() >= ends:
                raise Refusal(400, "ExpiredTokenException", "The security token is expired")
        if not secret:
            raise Refusal(400, "UnrecognizedClientException", "The security token is invalid")
        signed = parts["SignedHeaders"].split(";")
        canonical = "\n".join(
            (
                asked.method,
                quote(asked.path.partition("?")[0], safe="/-_.~"),
                asked.path.partition("?")[2],
                *(f"{name}:{' '.join(asked.headers.get(name, '').split())}" for name in signed),
                "",
                parts["SignedHeaders"],
                hashlib.sha256(asked.body).hexdigest(),
            )
        )
        stamp = asked.headers["x-amz-date"]
        then = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if abs(now(self.files) - then.timestamp()) > 300:
            latest = datetime.fromtimestamp(now(self.files) - 300, UTC).strftime("%Y%m%dT%H%M%SZ")
            raise Refusal(
                400,
                "InvalidSignatureException",
                f"Signature expired: {stamp} is now earlier than {latest} (… - 5 min.)",
            )
        scope = f"{date}/{region}/{named}/aws4_request"
        text = (
            f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        )
        key = f"AWS4{secret}".encode()
        for part in (date, region, named, "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        expected = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected, parts["Signature"]):
            raise Refusal(403, "InvalidSignatureException", "The request signature does not match")

    def _assume(self, body: dict[str, list[str]]) -> Answer:
        if body["RoleArn"][0] != ROLE or body.get("ExternalId", [""])[0] != EXTERNAL_ID:
            raise Refusal(403, "AccessDenied", "User is not authorized to perform: sts:AssumeRole")
        return self._session("AssumeRole")

    def _assume_by_token(self, body: dict[str, list[str]]) -> Answer:
        """What a cluster's pod does first: no signature, a token that the role has to trust."""
        if body["RoleArn"][0] != ROLE or body["WebIdentityToken"][0] != WEB_TOKEN:
            raise Refusal(
                403, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity"
            )
        return self._session("AssumeRoleWithWebIdentity")

    def _session(self, operation: str) -> Answer:
        access = f"ASIA{secrets.token_hex(8).upper()}"
        secret, token = secrets.token_urlsafe(30), secrets.token_urlsafe(60)
        self.sessions[access] = (secret, token, time.time() + SESSION_S)
        ends = datetime.fromtimestamp(time.time() + SESSION_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return _xml(
            200,
            f'<{operation}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
            f"<{operation}Result><Credentials>"
            f"<AccessKeyId>{access}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>"
            f"<SessionToken>{token}</SessionToken><Expiration>{ends}</Expiration></Credentials>"
            f"<AssumedRoleUser><Arn>{ROLE}</Arn><AssumedRoleId>x:y</AssumedRoleId></AssumedRoleUser>"
            f"</{operation}Result></{operation}Response>",
        )

    def _named(self, name: str) -> Any:
        """The key behind an id, an ARN or an alias, if its state and its kind allow its use."""
        short = name.rpartition(":key/")[2] if ":key/" in name else name
        if "alias/" in name:
            alias = "alias/" + name.rpartition("alias/")[2]
            short = self.backend.get_key_id_from_alias(alias) or ""
        found = self.backend.keys.get(short)
        if found is None or (name.startswith("arn:") and f":{REGION}:" not in name):
            raise Refusal(400, "NotFoundException", f"Invalid keyId '{name}'")
        state = self.files.state if found is self.key else L1State.ENABLED
        match state:
            case L1State.FORBIDDEN:
                raise Refusal(
                    400, "AccessDeniedException", "User is not authorized to perform this"
                )
            case L1State.DELETED:
                raise Refusal(400, "NotFoundException", f"Key '{found.arn}' does not exist")
            case L1State.DISABLED:
                raise Refusal(400, "DisabledException", f"{found.arn} is disabled.")
            case L1State.PENDING_DELETION:
                raise Refusal(400, "KMSInvalidStateException", f"{found.arn} is pending deletion.")
            case L1State.UNREACHABLE:
                raise Refusal(500, "KMSInternalException", "internal")
        if found.key_usage != "ENCRYPT_DECRYPT":
            raise Refusal(400, "InvalidKeyUsageException", f"{found.arn} key usage is SIGN_VERIFY")
        return found

    def _do_encrypt(self, body: dict[str, Any]) -> dict[str, Any]:
        found = self._named(body["KeyId"])
        blob, arn = self.backend.encrypt(
            found.id, base64.b64decode(body["Plaintext"]), _context(body)
        )
        return {
            "CiphertextBlob": self._perhaps_corrupt(blob),
            "KeyId": arn,
            "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
        }

    def _do_decrypt(self, body: dict[str, Any]) -> dict[str, Any]:
        found = self._named(body["KeyId"])
        try:
            plaintext, arn = self.backend.decrypt(
                base64.b64decode(body["CiphertextBlob"]), _context(body)
            )
        except Exception:  # noqa: BLE001 - what is no ciphertext at all ends in moto's own troubles
            raise Refusal(400, "InvalidCiphertextException", "") from None
        if arn != found.arn:
            raise Refusal(400, "IncorrectKeyException", "The key ID in the request does not match")
        return {
            "Plaintext": self._perhaps_corrupt(plaintext),
            "KeyId": arn,
            "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
        }

    def _do_describekey(self, body: dict[str, Any]) -> dict[str, Any]:
        found = self._named(body["KeyId"])
        return {"KeyMetadata": {**found.to_dict()["KeyMetadata"], "CreationDate": 0}}

    def _perhaps_corrupt(self, data: bytes) -> str:
        made = bytearray(data)
        if self.files.trouble is Trouble.CORRUPT:
            made[-1] ^= 1
        return base64.b64encode(made).decode()


def _context(body: dict[str, Any]) -> dict[str, str]:
    """The context in one pair that nothing else can be read as: moto joins keys and values."""
    given = body.get("EncryptionContext") or {}
    return {"all": json.dumps(sorted(given.items()))}


def _json(status: int, body: dict[str, Any]) -> Answer:
    return Answer(status, json.dumps(body).encode(), {"Content-Type": "application/x-amz-json-1.1"})


def _xml(status: int, text: str) -> Answer:
    return Answer(status, text.encode(), {"Content-Type": "text/xml"})


def _xml_error(error: Refusal) -> Answer:
    return _xml(
        error.status,
        '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
        f"<Code>{error.code}</Code><Message>{error.message}</Message></Error></ErrorResponse>",
    )


def main(directory: Path) -> None:
    files = Files(directory)
    aws = Aws(files)

    def ready(port: int) -> None:
        tail = f"endpoint=127.0.0.1:{port}&ca=file:{directory / 'ca.pem'}"
        (directory / "other").write_text(f"awskms:{aws.other.arn}?{tail}")
        nothing = f"{aws.key.arn.rpartition('/')[0]}/{uuid.UUID(int=0)}"
        (directory / "nothing").write_text(f"awskms:{nothing}?{tail}")
        (directory / "signing").write_text(f"awskms:{aws.signing.arn}?{tail}")
        (directory / "alias").write_text(f"awskms:alias/kcm-root?region={REGION}&{tail}")
        (directory / "role").write_text(
            f"awskms:{aws.key.arn}?role-arn={ROLE}&external-id={EXTERNAL_ID}&{tail}"
        )
        credentials = {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL_STS": f"https://127.0.0.1:{port}",
            "AWS_CA_BUNDLE": str(directory / "ca.pem"),
            "KCM_L1_ENDPOINTS": f"127.0.0.1:{port}",
        }
        files.ready(f"awskms:{aws.key.arn}?{tail}", credentials)

    run(directory, files, aws.serve, ready)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
