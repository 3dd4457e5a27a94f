"""A second decoder, written from ``docs/wire-format.md`` and from nothing else.

It imports nothing of the project, only primitives: AES in ECB mode and AES-GCM, Ed25519, HKDF,
and for HPKE ML-KEM and X25519. It is slow and plain on purpose, so that a disagreement with the
product is a fault of the product or of the document. It holds keys as ``bytes`` and is for tests
only.
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tests.vectors.hpke_open import open_sealed
from tests.vectors.packed import Refused, read_message

NAME = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-")
WRAPPED = 72


# --- Context -----------------------------------------------------------------------------------


def u32(value: int) -> bytes:
    return struct.pack(">I", value)


def u64(value: int) -> bytes:
    return struct.pack(">Q", value)


def ctx(label: str, *parts: bytes | str) -> bytes:
    out = b""
    for part in (label, *parts):
        data = part.encode("utf-8") if isinstance(part, str) else part
        out += struct.pack(">H", len(data)) + data
    return out


# --- XAES-256-GCM ------------------------------------------------------------------------------


def xaes_key(key: bytes, nonce: bytes) -> bytes:
    def aes(block: bytes) -> bytes:
        encryptor = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()
        return encryptor.update(block) + encryptor.finalize()

    wide = int.from_bytes(aes(bytes(16)), "big")
    k1 = (wide << 1) % (1 << 128) ^ (0x87 if wide >> 127 else 0)
    halves = []
    for counter in (1, 2):
        block = bytes((0, counter)) + b"X\x00" + nonce[:12]
        halves.append(aes((int.from_bytes(block, "big") ^ k1).to_bytes(16, "big")))
    return b"".join(halves)


def xaes_open(key: bytes, blob: bytes, aad: bytes) -> bytes:
    if len(blob) < 24 + 16:
        raise Refused("malformed")
    try:
        return AESGCM(xaes_key(key, blob)).decrypt(blob[12:24], blob[24:], aad)
    except InvalidTag:
        raise Refused("tampered") from None


# --- Wraps -------------------------------------------------------------------------------------


def unwrap(key: bytes, blob: bytes, aad: bytes) -> bytes:
    if len(blob) != WRAPPED:
        raise Refused("malformed")
    opened = xaes_open(key, blob, aad)
    if opened == bytes(32):
        raise Refused("tampered")
    return opened


def l2_aad(tenant: str, region: str, version: int, seal_key_id: bytes) -> bytes:
    return ctx("kcm/v1/l2", tenant, region, u32(version), seal_key_id)


def l3_aad(tenant: str, region: str, service: str, version: int, l2_version: int) -> bytes:
    return ctx("kcm/v1/l3", tenant, region, service, u32(version), u32(l2_version))


def l4_aad(purpose: str, tenant: str, region: str, service: str, version: int) -> bytes:
    return ctx("kcm/v1/l4", purpose, tenant, region, service, u32(version))


# --- Records -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Record:
    region: str
    tenant: str
    service: str
    l3_version: int
    wrapped: bytes
    index: int
    header: bytes
    sealed: bytes


def parse_record(record: bytes) -> Record:
    if record[:5] != b"KCM1\x01":
        raise Refused("malformed")
    at, names = 5, []
    for _ in range(3):
        size = record[at] if at < len(record) else 0
        name = record[at + 1 : at + 1 + size]
        if not 1 <= size <= 63 or len(name) != size or not set(name) <= NAME:
            raise Refused("malformed")
        names.append(name.decode("ascii"))
        at += 1 + size
    end = at + 4 + WRAPPED + 4
    if len(record) < end + 16:
        raise Refused("malformed")
    (version,) = struct.unpack(">I", record[at : at + 4])
    (index,) = struct.unpack(">I", record[end - 4 : end])
    if version == 0:
        raise Refused("malformed")
    wrapped = record[at + 4 : end - 4]
    region, tenant, service = names
    return Record(region, tenant, service, version, wrapped, index, record[:end], record[end:])


def open_record(
    record: bytes, context: bytes, asked: tuple[str, str, str], service_keys: dict[int, bytes]
) -> bytes:
    """Open a record as ``asked``: region, tenant, service."""
    parsed = parse_record(record)
    if parsed.region != asked[0]:
        raise Refused("wrong_region")
    if (parsed.tenant, parsed.service) != asked[1:]:
        raise Refused("forbidden")
    if parsed.l3_version not in service_keys:
        raise Refused("key_destroyed")
    aad = l4_aad("record", parsed.tenant, parsed.region, parsed.service, parsed.l3_version)
    data_key = unwrap(service_keys[parsed.l3_version], parsed.wrapped, aad)
    nonce = bytes(8) + u32(parsed.index)
    try:
        bound = ctx("kcm/v1/record", parsed.header, context)
        return AESGCM(data_key).decrypt(nonce, parsed.sealed, bound)
    except InvalidTag:
        raise Refused("tampered") from None


# --- Signed statements, holds, audit -----------------------------------------------------------


def verify_statement(raw: bytes, public: bytes) -> tuple[str, str, bytes]:
    """Kind, signer and body of a statement, whichever of its signers has ``public``."""
    said = read_message(raw, ("system", "kind", "body", "signatures"))
    content = sha256(said["body"]).digest()
    for one in said["signatures"]:
        bound = ctx("kcm/v1/sign", said["system"], said["kind"], one["signer"], content)
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(one["signature"], bound)
        except InvalidSignature:
            continue
        return said["kind"], one["signer"], said["body"]
    raise Refused("tampered")


_HOLD = ("id", "salt", "scope", "target", "cause", "origin", "issued_ms", "reason")


def check_hold(body: bytes) -> bytes:
    """The id of a hold, which commits to the rest of it."""
    hold = read_message(body, _HOLD)
    texts = [hold[name] for name in ("scope", "target", "cause", "origin")]
    issued = u64(hold["issued_ms"])
    content = ctx("kcm/v1/hold-id", *texts, issued, hold["reason"], hold["salt"])
    if sha256(content).digest()[:16] != hold["id"]:
        raise Refused("tampered")
    return bytes(hold["id"])


def audit_head(events: list[bytes], previous: bytes = bytes(32)) -> bytes:
    """The hash of the last of consecutive events."""
    for event in events:
        previous = sha256(ctx("kcm/v1/audit-chain", previous, event)).digest()
    return previous


def stream_digest(messages: list[tuple[str, bytes]], digest: bytes = bytes(32)) -> bytes:
    """The chain of an audit stream after these messages, with their subjects, from the first on."""
    for number, (subject, message) in enumerate(messages, 1):
        digest = sha256(
            ctx(
                "kcm/v1/audit-stream",
                digest,
                number.to_bytes(8, "big"),
                subject,
                sha256(message).digest(),
            )
        ).digest()
    return digest


# --- Sealed channel ----------------------------------------------------------------------------


def session_info(
    callee: tuple[str, str, bytes], caller: tuple[str, bytes, bytes], issued: int, expiry: int
) -> bytes:
    """``callee`` is region, name and key id; ``caller`` is name, incarnation and session id."""
    return ctx("kcm/v1/session", *callee, *caller, u64(issued), u64(expiry))


def ticket_to_sign(info: bytes, ciphertext: bytes) -> bytes:
    return ctx("kcm/v1/ticket", sha256(info).digest(), sha256(ciphertext).digest())


def session_keys(hpke_secret: bytes, ciphertext: bytes, info: bytes) -> tuple[bytes, bytes, bytes]:
    """The keys for requests, for replies and for asks."""
    secret = open_sealed(hpke_secret, ciphertext, info)
    return direction_keys(secret, ciphertext, info)


def direction_keys(secret: bytes, ciphertext: bytes, info: bytes) -> tuple[bytes, bytes, bytes]:
    salt = sha256(info + ciphertext).digest()
    request, reply, ask = (
        HKDF(SHA256(), 32, salt, name).derive(secret) for name in (b"request", b"reply", b"ask")
    )
    return request, reply, ask


def request_aad(session_id: bytes, counter: int, clear: bytes) -> bytes:
    return ctx("kcm/v1/request", session_id, u64(counter), clear)


def reply_aad(aad: bytes, callee: str, outcome: str) -> bytes:
    return ctx("kcm/v1/reply", sha256(aad).digest(), callee, outcome)


def ask_tag(key: bytes, about: tuple[Any, ...], wrapped: bytes) -> bytes:
    """``about`` has session id, region, Gateway, tenant, service, deadline and L3 version."""
    *names, deadline_ms, version = about
    parts = (*names, u64(deadline_ms), u32(version), sha256(wrapped).digest())
    return hmac.digest(key, ctx("kcm/v1/ask", *parts), "sha256")
