"""The product's side of the vectors: the libraries put together as the services do it.

Answers with plaintext, or raises ``Refused`` with the class that the product tells.
"""

from __future__ import annotations

from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from kcm_keymem.arena import Keys
from kcm_schemas import labels, record
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.labels import ctx, record_aad
from kcm_schemas.limits import KEY_SIZE
from kcm_sealing import xaes

from tests.vectors.packed import Refused


def scratch() -> memoryview:
    """What a derivation needs."""
    return memoryview(bytearray(xaes.SCRATCH_SIZE))


def locked(key: bytes) -> memoryview:
    """A key as the product takes it."""
    return memoryview(bytearray(key))


def keys(data: bytes) -> Keys:
    """Consecutive keys, or places for them, as the product takes them."""
    return Keys.of(locked(data))


def binding(case: dict[str, Any]) -> bytes:
    """The associated data of a wrap vector."""
    match case["layer"]:
        case "l2":
            tail = case["l2_version"], bytes.fromhex(case["seal_key_id"])
            return ctx(labels.L2, case["tenant"], case["region"], *tail)
        case "l3":
            names = case["tenant"], case["region"], case["service"]
            return ctx(labels.L3, *names, case["l3_version"], case["l2_version"])
        case _:
            names = case["tenant"], case["region"], case["service"]
            return ctx(labels.L4, case["purpose"], *names, case["l3_version"])


def unwrap(key: bytes, blob: bytes, aad: bytes) -> bytes:
    """One wrapped key."""
    out = keys(bytes(KEY_SIZE))
    try:
        bad = xaes.unwrap_batch(locked(key), blob, aad, out, scratch())
    except ValueError:
        raise Refused("malformed") from None
    if bad:
        assert not any(out.view)
        raise Refused("tampered")
    return out.view.tobytes()


def open_record(
    raw: bytes, app_context: bytes, asked: tuple[str, str, str], service_keys: dict[int, bytes]
) -> bytes:
    """A record as ``asked``: region, tenant, service."""
    try:
        header = record.parse(raw)
    except KcmError as error:
        raise Refused(error.code.value) from None
    if header.region != asked[0]:
        raise Refused(Code.WRONG_REGION.value)
    if (header.tenant, header.service) != asked[1:]:
        raise Refused(Code.FORBIDDEN.value)
    if header.l3_version not in service_keys:
        raise Refused(Code.KEY_DESTROYED.value)
    aad = ctx(labels.L4, "record", header.tenant, header.region, header.service, header.l3_version)
    data_key = unwrap(service_keys[header.l3_version], header.wrapped, aad)
    nonce = bytes(8) + header.index.to_bytes(4, "big")
    try:
        return AESGCM(data_key).decrypt(
            nonce, raw[len(header.raw) :], record_aad(header.raw, app_context)
        )
    except InvalidTag:
        raise Refused(Code.TAMPERED.value) from None
