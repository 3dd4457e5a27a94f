"""Records of suite 1: valid ones, and every way to be refused."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from kcm_schemas import labels, record
from kcm_schemas.labels import ctx, record_aad

from tests.vectors.families.fixed import Document, fixed, flip, seal
from tests.vectors.families.keys import LONG, REGION, SERVICE, TENANT

HOME = (REGION, TENANT, SERVICE)
KEYS = {1: fixed("service key 1"), 2: fixed("service key 2")}


def make(
    plaintext: bytes,
    app_context: bytes,
    *,
    where: tuple[str, str, str] = HOME,
    version: int = 1,
    index: int = 0,
    data_key: str = "data key",
    purpose: str = "record",
) -> bytes:
    """A record as the product makes it, of fixed keys."""
    region, tenant, service = where
    aad = ctx(labels.L4, purpose, tenant, region, service, version)
    key = fixed(data_key)
    wrapped = seal(KEYS[version], key, aad, fixed(f"{data_key}: nonce", 24))
    header = record.build(record.prefix(region, tenant, service, version), wrapped, index)
    nonce = bytes(8) + index.to_bytes(4, "big")
    return header + AESGCM(key).encrypt(nonce, plaintext, record_aad(header, app_context))


def _case(name: str, made: bytes, app_context: bytes, **more: Any) -> dict[str, Any]:
    asked = more.pop("asked", HOME)
    fields = {"name": name, "asked": list(asked), "context": app_context.hex()}
    return fields | {"record": made.hex()} | more


def records() -> Document:
    """Valid and invalid records, with the service keys that open them."""
    return {
        "about": "'asked' is region, tenant, service of the request; 'failure' is the class that "
        "a decoder must tell; versions without a service key are destroyed",
        "service_keys": {str(version): key.hex() for version, key in KEYS.items()},
        "valid": _valid(),
        "invalid": _malformed() + _elsewhere() + _tampered(),
    }


def _valid() -> list[dict[str, Any]]:
    utf8 = "Grüße, 世界 \U0001f511".encode()
    rows: list[tuple[str, bytes, bytes, dict[str, Any]]] = [
        ("a key for one record", b"hello", b"row 17", {}),
        ("no context", b"hello", b"", {}),
        ("an empty plaintext", b"", b"row 17", {}),
        ("an empty plaintext and no context", b"", b"", {}),
        ("the second record of a batch", b"hello", b"", {"index": 1}),
        ("the highest index", b"hello", b"", {"index": (1 << 32) - 1}),
        ("the longest names", b"hello", b"", {"where": (LONG, LONG, LONG)}),
        ("the shortest names", b"hello", b"", {"where": ("a", "-", "0")}),
        ("the longest context", b"hello", fixed("context", 4096), {}),
        ("text in UTF-8", utf8, utf8, {}),
        ("the second version of the service key", b"hello", b"", {"version": 2}),
        ("a plaintext of one page", fixed("page", 4096), b"", {}),
    ]
    return [
        _case(
            name,
            make(plaintext, bound, **how),
            bound,
            asked=how.get("where", HOME),
            plaintext=plaintext.hex(),
        )
        for name, plaintext, bound, how in rows
    ]


def _malformed() -> list[dict[str, Any]]:
    good = make(b"", b"")
    region_at, name_end = 5, 6 + len(REGION)
    version_at = name_end + 2 + len(TENANT) + len(SERVICE)

    def renamed(text: bytes) -> bytes:
        return good[:region_at] + bytes((len(text),)) + text + good[name_end:]

    rows = [
        ("nothing", b""),
        ("only the magic", b"KCM1"),
        ("another magic", b"KCM0" + good[4:]),
        ("a later format", b"KCM2" + good[4:]),
        ("a magic in small letters", b"kcm1" + good[4:]),
        *((f"suite {n}", good[:4] + bytes((n,)) + good[5:]) for n in (0, 2, 3, 4, 255)),
        ("a name of no characters", renamed(b"")),
        ("a name of 64 characters", renamed(b"a" * 64)),
        ("a name in capitals", renamed(b"EU")),
        ("a name with a dot", renamed(b"eu.central")),
        ("a name with a wildcard", renamed(b"*")),
        ("a name with a line end", renamed(b"eu\n")),
        ("a name outside ASCII", renamed("é".encode())),
        ("a name with a zero byte", renamed(b"eu\x00")),
        ("a name that is longer than the record", good[:5] + b"\x3f" + good[6:12]),
        ("version 0", good[:version_at] + bytes(4) + good[version_at + 4 :]),
        ("cut by one byte", good[:-1]),
        ("only the header", good[:-16]),
        ("cut within the wrapped key", good[: version_at + 40]),
    ]
    return [_case(name, made, b"", failure="malformed") for name, made in rows]


def _elsewhere() -> list[dict[str, Any]]:
    good = make(b"hello", b"")
    rows = [
        ("asked for in another region", ("us-east", TENANT, SERVICE), "wrong_region"),
        ("asked for by another tenant", (REGION, "globex", SERVICE), "forbidden"),
        ("asked for by another service", (REGION, TENANT, "billing"), "forbidden"),
        ("everything is another's: the region is told", ("us-east", "globex", "x"), "wrong_region"),
    ]
    cases = [_case(name, good, b"", asked=asked, failure=why) for name, asked, why in rows]
    gone = good.replace(b"payroll\x00\x00\x00\x01", b"payroll\x00\x00\x00\x09")
    return [*cases, _case("a version that is gone", gone, b"", failure="key_destroyed")]


def _tampered() -> list[dict[str, Any]]:
    bound = b"row 17"
    good = make(b"hello", bound)
    head = len(good) - len(b"hello") - 16
    us = ("us-east", TENANT, SERVICE)
    moved = good.replace(b"\x0aeu-central", b"\x07us-east")
    batch = [make(b"hello", bound, index=index) for index in (0, 1)]
    spliced = batch[0][:head] + batch[1][head:]
    other = make(b"hello", bound, data_key="another data key")
    grafted = good[: head - 76] + other[head - 76 : head - 4] + good[head - 4 :]
    version = good.replace(b"payroll\x00\x00\x00\x01", b"payroll\x00\x00\x00\x02")
    rows = [
        ("a bit of the wrapped key's nonce", flip(good, head - 76)),
        ("a bit of the wrapped key", flip(good, head - 40)),
        ("a bit of the wrapped key's tag", flip(good, head - 5, 7)),
        ("a bit of the index", flip(good, head - 1)),
        ("a bit of the ciphertext", flip(good, head)),
        ("a bit of the tag", flip(good, -1, 7)),
        ("a byte more", good + b"\x00"),
        ("a byte less", good[:-1]),
        ("no ciphertext, only a tag's length of it", good[: head + 16]),
        ("another version that exists", version),
        ("another record's data key", grafted),
        ("another record's ciphertext, of the same batch", spliced),
        ("a data key of a stream", make(b"hello", bound, purpose="stream")),
    ]
    cases = [_case(name, made, bound, failure="tampered") for name, made in rows]
    contexts = [b"", b"row 1", b"row 17 ", b"ROW 17", fixed("context", 4096)]
    cases += [
        _case(f"another context ({number})", good, text, failure="tampered")
        for number, text in enumerate(contexts, 1)
    ]
    return [*cases, _case("moved to another region", moved, bound, asked=us, failure="tampered")]
