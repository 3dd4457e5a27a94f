"""Contexts, XAES-256-GCM, and the wraps of L2, L3 and L4."""

from __future__ import annotations

from typing import Any

from kcm_keymem.arena import Keys
from kcm_schemas import labels as context
from kcm_schemas import limits
from kcm_schemas.labels import Label, Part, ctx
from kcm_sealing import xaes

from tests.vectors.families.fixed import Document, fixed, flip, seal

TENANT, REGION, SERVICE = "acme", "eu-central", "payroll"

LONG = "a" * 63
"""The longest name there is."""


def _samples(label: Label) -> list[tuple[str | int | bytes, ...]]:
    """Two sets of parts: ordinary ones, and the ends of every range."""
    plain: dict[Part, Any] = {Part.TEXT: "payroll", Part.BYTES: b"\x00\xff", Part.U32: 7}
    plain[Part.U64] = 1_700_000_000_000
    edge: dict[Part, Any] = {Part.TEXT: "Zürich \U0001f511", Part.BYTES: b""}
    edge |= {Part.U32: (1 << 32) - 1, Part.U64: (1 << 64) - 1}
    return [tuple(kind[part] for part in label.parts) for kind in (plain, edge)]


def contexts() -> Document:
    """Every label with its parts."""
    labels = [value for value in vars(context).values() if isinstance(value, Label)]
    cases = []
    for label in labels:
        for parts in _samples(label):
            typed = [
                {"type": kind.value, "value": value.hex() if isinstance(value, bytes) else value}
                for kind, value in zip(label.parts, parts, strict=True)
            ]
            cases.append({"label": label.name, "parts": typed, "encoded": ctx(label, *parts).hex()})
    return {"about": "ctx(label, *parts); bytes in hexadecimal", "valid": cases}


def xaes_vectors() -> Document:
    """The vectors that C2SP publishes, with their intermediate values."""
    nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX"
    published = {"nonce": nonce.hex(), "plaintext": b"XAES-256-GCM".hex()}
    first = {
        "key": "01" * 32,
        **published,
        "aad": "",
        "l": "7298caa565031eadc6ce23d23ea66378",
        "k1": "e531954aca063d5b8d9c47a47d4cc6f0",
        "derived_key": "c8612c9ed53fe43e8e005b828a1631a0bbcb6ab2f46514ec4f439fcfd0fa969b",
        "sealed": "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271",
    }
    second = {
        "key": "03" * 32,
        **published,
        "aad": b"c2sp.org/XAES-256-GCM".hex(),
        "l": "91c08762876dccf9ba204a33768fa5fe",
        "k1": "23810ec50edb99f374409466ed1f4b7b",
        "derived_key": "e9c621d4cdd9b11b00a6427ad7e559aeedd66b3857646677748f8ca796cb3fd8",
        "sealed": "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
    }
    accumulated = {
        "10000": "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939",
        "1000000": "2163ae1445985a30b60585ee67daa55674df06901b890593e824b8a7c885ab15",
    }
    return {
        "about": "C2SP XAES-256-GCM; 'sealed' is ciphertext and tag, without the nonce. "
        "Accumulated: for each round read key (32), nonce (24), a length byte and that much "
        "plaintext, a length byte and that much AAD from SHAKE-128 of nothing; hash all "
        "ciphertexts with a second SHAKE-128; the first 32 bytes of it",
        "valid": [first, second],
        "accumulated": accumulated,
    }


def _batch(count: int, nonce: bytes) -> tuple[list[bytes], list[bytes]]:
    """``count`` data keys and their wraps, in one batch."""
    keys = [fixed(f"batch key {position}") for position in range(count)]
    aad = ctx(context.L4, "record", TENANT, REGION, SERVICE, 3)
    out = bytearray(count * limits.WRAPPED_SIZE)
    xaes.wrap_batch(
        memoryview(bytearray(fixed("l3"))),
        Keys.of(memoryview(bytearray(b"".join(keys)))),
        aad,
        nonce,
        memoryview(out),
        memoryview(bytearray(xaes.SCRATCH_SIZE)),
    )
    size = limits.WRAPPED_SIZE
    return keys, [bytes(out[at : at + size]) for at in range(0, len(out), size)]


def wraps() -> Document:
    """L2 inside its L1, L3 under L2, L4 under L3; alone and in a batch whose counter wraps."""
    seal_key_id = fixed("seal key id", 16)
    where = {"tenant": TENANT, "region": REGION}
    l2 = {"layer": "l2", **where, "l2_version": 1, "seal_key_id": seal_key_id.hex()}
    l3 = {"layer": "l3", **where, "service": SERVICE, "l3_version": 3, "l2_version": 1}
    l4 = {"layer": "l4", "purpose": "record", **where, "service": SERVICE, "l3_version": 3}
    stream = l4 | {"purpose": "stream"}
    longest = l3 | {"tenant": LONG, "region": LONG, "service": LONG, "l3_version": (1 << 32) - 1}
    valid = [
        _wrap(name, binds)
        for name, binds in (
            ("L2 under the seal key", l2),
            ("L3 under L2", l3),
            ("L4 under L3", l4),
            ("L4 of a stream", stream),
            ("the longest names and the highest version", longest),
        )
    ]
    nonce = fixed("batch nonce", 12) + b"\xff" * 11 + b"\xfe"
    keys, blobs = _batch(4, nonce)
    for position, (key, blob) in enumerate(zip(keys, blobs, strict=True)):
        case = {"name": f"batch, position {position}: the counter wraps modulo 2**96", **l4}
        valid.append(case | {"kek": fixed("l3").hex(), "key": key.hex(), "wrapped": blob.hex()})
    return {
        "about": "32-byte keys under 'kek'; 'failure' is the class that a decoder must tell",
        "valid": valid,
        "invalid": [*_broken(valid[1]), _zero_key(l3)],
    }


def _aad(binds: dict[str, Any]) -> bytes:
    b = binds
    match b["layer"]:
        case "l2":
            key_id = bytes.fromhex(b["seal_key_id"])
            return ctx(context.L2, b["tenant"], b["region"], b["l2_version"], key_id)
        case "l3":
            names = b["tenant"], b["region"], b["service"]
            return ctx(context.L3, *names, b["l3_version"], b["l2_version"])
        case _:
            names = b["tenant"], b["region"], b["service"]
            return ctx(context.L4, b["purpose"], *names, b["l3_version"])


def _wrap(name: str, binds: dict[str, Any]) -> dict[str, Any]:
    kek, key, nonce = fixed(f"{name}: kek"), fixed(f"{name}: key"), fixed(f"{name}: nonce", 24)
    wrapped = seal(kek, key, _aad(binds), nonce)
    return {"name": name, **binds, "kek": kek.hex(), "key": key.hex(), "wrapped": wrapped.hex()}


def _broken(good: dict[str, Any]) -> list[dict[str, Any]]:
    base = {name: value for name, value in good.items() if name != "key"}
    blob = bytes.fromhex(good["wrapped"])
    changes: list[tuple[str, dict[str, Any], str]] = [
        ("another region", {"region": "us-east"}, "tampered"),
        ("another tenant", {"tenant": "acme2"}, "tampered"),
        ("another service", {"service": "payrolls"}, "tampered"),
        ("tenant and region exchanged", {"tenant": REGION, "region": TENANT}, "tampered"),
        ("another version", {"l3_version": 4}, "tampered"),
        ("under another version of L2", {"l2_version": 2}, "tampered"),
        ("another key", {"kek": fixed("somebody else's").hex()}, "tampered"),
        ("a bit of the nonce's first half", {"wrapped": flip(blob, 0).hex()}, "tampered"),
        ("a bit of the nonce's second half", {"wrapped": flip(blob, 23).hex()}, "tampered"),
        ("a bit of the ciphertext", {"wrapped": flip(blob, 24).hex()}, "tampered"),
        ("a bit of the tag", {"wrapped": flip(blob, -1, 7).hex()}, "tampered"),
        ("a byte short", {"wrapped": blob[:-1].hex()}, "malformed"),
        ("a byte long", {"wrapped": (blob + b"\x00").hex()}, "malformed"),
        ("nothing", {"wrapped": ""}, "malformed"),
    ]
    return [base | change | {"name": name, "failure": why} for name, change, why in changes]


def _zero_key(binds: dict[str, Any]) -> dict[str, Any]:
    kek, nonce = fixed("zero key: kek"), fixed("zero key: nonce", 24)
    wrapped = seal(kek, bytes(32), _aad(binds), nonce).hex()
    name = "a key of all zeros, authentic as it is"
    return {"name": name, **binds, "kek": kek.hex(), "wrapped": wrapped, "failure": "tampered"}
