"""Messages: the canonical encoding, signed statements, holds, the audit chain."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from typing import Any

import msgpack
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kcm_schemas import labels
from kcm_schemas.audit import GENESIS, AuditEvent
from kcm_schemas.auditor import StreamHead, Trim
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code
from kcm_schemas.control import Hold, Lift
from kcm_schemas.data import DecryptRequest
from kcm_schemas.labels import ctx
from kcm_schemas.registry import Link, Service, Tenant
from kcm_schemas.signed import Kind, Signature, Signed
from kcm_trust.identity import Identity
from kcm_trust.verify import hold_id

from tests.vectors.families.fixed import Document, fixed, flip

ISSUED = 1_700_000_000_000
SYSTEM = "test"
"""The system of whoever signs in vectors and in tests."""


@cache
def identity(name: str) -> Identity:
    """An identity with a fixed key."""
    return Identity(name, private_key(name), SYSTEM)


@cache
def private_key(name: str) -> Ed25519PrivateKey:
    """The fixed key of an identity."""
    return Ed25519PrivateKey.from_private_bytes(fixed(f"identity {name}"))


def hold(*, cause: str = "operator", salt: str = "salt", reason: str = "drill") -> Hold:
    """A hold on a tenant, with the id that it must have."""
    fields: dict[str, Any] = {
        "salt": fixed(salt, 16),
        "scope": "tenant",
        "target": "acme",
        "cause": cause,
        "origin": "eu-central",
        "issued_ms": ISSUED,
        "reason": reason,
    }
    draft = Hold(id=bytes(16), **fields)
    return Hold(id=hold_id(draft), **fields)


def codec() -> Document:
    """One message in its one encoding, and the same in encodings that msgpack also allows."""
    message = DecryptRequest(
        v=1, deadline_ms=ISSUED, records=[b"\x01\x02"], contexts=[b"", b"x" * 300]
    )
    good = encode(message)
    plain = msgpack.unpackb(good)
    pairs = list(plain.items())

    def glued(parts: list[tuple[str, bytes]]) -> bytes:
        keyed = b"".join(msgpack.packb(key) + value for key, value in parts)
        return bytes((0x80 | len(parts),)) + keyed

    def swapped(name: str, value: bytes) -> bytes:
        return glued([(k, value if k == name else msgpack.packb(v)) for k, v in pairs])

    packed = [(key, msgpack.packb(value)) for key, value in pairs]
    rows = [
        ("fields in another order", glued([*packed[1:], packed[0]])),
        ("a field twice", glued([*packed, packed[0]])),
        ("a field less", glued(packed[:-1])),
        ("a field more", glued([*packed, ("w", b"\x01")])),
        ("a map of 16-bit length", b"\xde\x00\x04" + good[1:]),
        ("a map of 32-bit length", b"\xdf\x00\x00\x00\x04" + good[1:]),
        ("a field's name in an 8-bit string", good[:1] + b"\xd9\x01v" + good[3:]),
        ("a field's name as bytes", good[:1] + b"\xc4\x01v" + good[3:]),
        ("an integer in 8 bits", swapped("v", b"\xcc\x01")),
        ("a signed integer", swapped("v", b"\xd0\x01")),
        ("an integer in 64 bits", swapped("v", b"\xcf" + bytes(7) + b"\x01")),
        ("a float", swapped("v", msgpack.packb(1.0))),
        ("true for one", swapped("v", b"\xc3")),
        ("nil", swapped("v", b"\xc0")),
        ("a negative integer", swapped("deadline_ms", b"\xff")),
        ("bytes with a 16-bit length", swapped("records", b"\x91\xc5\x00\x02\x01\x02")),
        ("bytes as a string", swapped("records", b"\x91\xa2\x01\x02")),
        ("bytes as an extension", swapped("records", b"\x91\xd5\x01\x01\x02")),
        ("a list of 16-bit length", swapped("records", b"\xdc\x00\x01\xc4\x02\x01\x02")),
        ("a list of 32-bit length", swapped("records", b"\xdd\x00\x00\x00\x01\xc4\x02\x01\x02")),
        ("a byte after the end", good + b"\x00"),
        ("cut by one byte", good[:-1]),
        ("nothing", b""),
        ("the byte that msgpack never uses", b"\xc1"),
        ("a list in place of the message", b"\x90"),
        ("a list of four thousand million items", b"\xdd\xff\xff\xff\xff"),
        ("bytes of four thousand million", b"\xc6\xff\xff\xff\xff"),
        ("ten thousand nested lists", b"\x91" * 10_000),
    ]
    return {
        "about": "a decrypt request; every invalid body is malformed",
        "fields": [key for key, _ in pairs],
        "valid": [{"name": "canonical", "body": good.hex()}],
        "invalid": [
            {"name": name, "body": body.hex(), "failure": "malformed"} for name, body in rows
        ],
    }


def _statement(name: str, who: Identity, raw: Signed) -> dict[str, Any]:
    return {"name": name, "public": who.public.hex(), "statement": encode(raw).hex()}


def signed() -> Document:
    """Statements and their signatures."""
    admin = identity("admin-1")
    tenant = Tenant(
        tenant="acme", revision=1, link="acme-root", regions=["eu-central"], region_quorum="all"
    )
    link = Link(link="acme-root", revision=1, uri="pkcs11:token=acme;object=root", model="hyok")
    service = Service(tenant="acme", service="payroll", revision=1)
    good = admin.sign(Kind.TENANT, tenant)
    valid = [
        _statement("a tenant", admin, good),
        _statement("a link", admin, admin.sign(Kind.LINK, link)),
        _statement("a service", admin, admin.sign(Kind.SERVICE, service)),
        _statement("a hold", admin, admin.sign(Kind.HOLD, hold())),
        _statement("two signers", admin, identity("admin-0").countersign(good)),
    ]

    def changed(**fields: Any) -> Signed:
        return Signed(**(dict(good) | fields))

    def by(signer: str = "admin-1", at: int | None = None) -> list[Signature]:
        one = good.signatures[0].signature
        return [Signature(signer=signer, signature=one if at is None else flip(one, at))]

    other = identity("admin-2")
    invalid = [
        _statement("another system", admin, changed(system="tests")),
        _statement("another kind", admin, changed(kind=Kind.LINK)),
        _statement("another signer", admin, changed(signatures=by("admin-2"))),
        _statement("another body", admin, changed(body=flip(good.body, -1))),
        _statement("a bit of the signature", admin, changed(signatures=by(at=0))),
        _statement("a bit at its end", admin, changed(signatures=by(at=-1))),
        _statement("another public key", other, good),
    ]
    return {
        "about": "signed statements; verify with 'public', an Ed25519 key",
        "valid": valid,
        "invalid": [case | {"failure": "tampered"} for case in invalid],
    }


def holds() -> Document:
    """Holds whose ids are those of their content, and ones whose are not."""
    longest = "\U0001f511" * 2048
    rows = [
        ("an operator's", hold()),
        ("an L1's", hold(cause="l1")),
        ("another salt, another id", hold(salt="another salt")),
        ("no reason", hold(reason="")),
        ("the longest reason", hold(reason=longest)),
    ]
    good = hold()
    changes: list[dict[str, Any]] = [
        {"id": flip(good.id, 0)},
        {"salt": flip(good.salt, 0)},
        {"scope": "link"},
        {"target": "globex"},
        {"cause": "l1"},
        {"origin": "us-east"},
        {"issued_ms": ISSUED + 1},
        {"reason": "drills"},
        {"target": "acmeoperator", "cause": "l1"},
    ]
    wrong = [(f"changed {', '.join(c)}", Hold(**(dict(good) | c))) for c in changes]
    officer = identity("officer-1")
    embedded = encode(officer.sign(Kind.HOLD, hold(reason=longest)))
    lift = Lift(hold=embedded, issued_ms=ISSUED + 1, reason="the drill is over")
    return {
        "about": "bodies of hold statements; a lift embeds its hold as it was signed",
        "valid": [{"name": n, "body": encode(h).hex(), "id": h.id.hex()} for n, h in rows],
        "invalid": [{"name": n, "body": encode(h).hex(), "failure": "tampered"} for n, h in wrong],
        "lift": {"public": officer.public.hex(), "body": encode(lift).hex()},
    }


def audit() -> Document:
    """A chain of three events."""
    events = [
        encode(
            AuditEvent(
                type="keys.unwrap",
                time_ms=ISSUED + number,
                actor="gw-1" if number else None,
                tenant="acme",
                service="payroll",
                target="",
                hold=None,
                code=Code.OK,
                count=number,
                failed=0,
                detail="",
            )
        )
        for number in range(3)
    ]
    heads, previous = [], GENESIS
    for event in events:
        previous = sha256(ctx(labels.AUDIT_CHAIN, previous, event)).digest()
        heads.append(previous.hex())
    return {
        "about": "events of one incarnation in order, and the chain's hash after each",
        "events": [event.hex() for event in events],
        "heads": heads,
        "stream": _stream(events),
    }


def _stream(events: list[bytes]) -> dict[str, Any]:
    """The chain of an audit stream over any messages, an Auditor's head of it, and a trim."""
    digest, rows = GENESIS, []
    for number, message in enumerate([*events, b"", b"rubbish"], 1):
        subject = f"kcm.v1.eu-central.audit.gw-{number % 2 + 1}"
        digest = sha256(
            ctx(labels.AUDIT_STREAM, digest, number, subject, sha256(message).digest())
        ).digest()
        rows.append({"subject": subject, "message": message.hex(), "digest": digest.hex()})
    auditor, core = identity("auditor-1"), identity("core-1")
    head = StreamHead(
        auditor="auditor-1",
        region="eu-central",
        created=ISSUED * 1000,
        through=len(rows),
        digest=digest,
        time_ms=ISSUED,
    )
    signed_head = encode(auditor.sign(Kind.STREAM_HEAD, head))
    trim = Trim(
        region="eu-central",
        created=ISSUED * 1000,
        through=len(rows),
        digest=digest,
        issued_ms=ISSUED + 1,
        heads=[signed_head],
    )
    return {
        "messages": rows,
        "head": _statement("a stream head", auditor, auditor.sign(Kind.STREAM_HEAD, head)),
        "trim": _statement("a trim", core, core.sign(Kind.TRIM, trim)),
    }
