"""The Core's wraps of 256 data keys beside AES-GCM alone on 32 bytes."""

from __future__ import annotations

import os
from typing import Final

from kcm_keymem.arena import ScratchPool
from kcm_schemas.limits import KEY_SIZE, WRAPPED_SIZE

from benchmarks.engine import Bare
from benchmarks.measure import BASELINE, Case, cpu
from benchmarks.rig import Rig

KEYS: Final = 256
"""Keys of one request: what a pool asks for at light load."""

TARGET: Final = 0.7
"""Ratio of speed to bare."""

_CALLS: Final = 32


def cases(rig: Rig, calls_max: int) -> list[Case]:
    """``Vault.wrap`` and ``Vault.unwrap``."""
    calls = min(_CALLS, calls_max)
    units = calls * KEYS
    bare, vault, ring, key = Bare(), rig.vault, rig.ring, rig.key
    plain = [os.urandom(KEY_SIZE) for _ in range(KEYS)]
    sealed = bare.encrypt(plain)
    blobs = bytearray(KEYS * WRAPPED_SIZE)
    pool = ScratchPool()
    with pool.borrow_keys(KEYS) as keys:
        keys.view[:] = b"".join(plain)
        vault.wrap(ring, key, "record", keys, memoryview(blobs))

    def wrap() -> None:
        with pool.borrow_keys(KEYS) as keys, pool.borrow(KEYS * WRAPPED_SIZE) as out:
            keys.view[:] = b"".join(plain)
            for _ in range(calls):
                vault.wrap(ring, key, "record", keys, out)

    def unwrap() -> None:
        with pool.borrow_keys(KEYS) as out:
            for _ in range(calls):
                if vault.unwrap(ring, key, "record", memoryview(blobs), out):
                    raise AssertionError("a key of this very run did not open")

    def bare_wrap() -> None:
        for _ in range(calls):
            bare.encrypt(plain)

    def bare_unwrap() -> None:
        for _ in range(calls):
            bare.decrypt(sealed)

    return [
        Case(
            f"wrap {KEYS} keys",
            "key",
            {BASELINE: cpu(units, bare_wrap), "Vault.wrap": cpu(units, wrap)},
            {"Vault.wrap": TARGET},
        ),
        Case(
            f"unwrap {KEYS} keys",
            "key",
            {BASELINE: cpu(units, bare_unwrap), "Vault.unwrap": cpu(units, unwrap)},
            {"Vault.unwrap": TARGET},
        ),
    ]
