"""The Gateway's engine beside AES-GCM alone: what an envelope per record costs.

Bare is the limit in Python: one ``AESGCM`` object, a nonce of ``os.urandom(12)`` per record put in
front of the ciphertext and sliced off again; no envelope, no context, no header, no kill switch.

What encrypts is held to a share of bare's speed. What decrypts is held to a share of its floor's:
the calls of the library that open a wrapped key and a record under it (``benchmarks.floor``).
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from kcm_gateway.engine import DekScope

from benchmarks.floor import Floor
from benchmarks.measure import BASELINE, Case, Turn, cpu, cpu_async
from benchmarks.rig import BATCHES, SERVICE, TENANT, Rig

SIZES: Final[Mapping[str, tuple[int, int, int]]] = {
    "100 B": (100, 1024, 6),
    "1 KiB": (1 << 10, 1024, 4),
    "64 KiB": (1 << 16, 128, 3),
    "1 MiB": (1 << 20, 4, 6),
}
"""Bytes of a record, records of a call, calls of a turn: a turn takes some 10 ms or more."""

RECORD_TARGETS: Final = {"1 KiB": 0.3, "64 KiB": 0.85}
BATCH_TARGETS: Final = {"1 KiB": 0.8, "64 KiB": 0.85, "1 MiB": 0.85}
"""Encryption: ratios of speed to bare."""

RECORD_FLOOR_TARGETS: Final = {"1 KiB": 0.5, "64 KiB": 0.75}
BATCH_FLOOR_TARGETS: Final = {"1 KiB": 0.4, "64 KiB": 0.75, "1 MiB": 0.7}
"""Decryption: ratios of speed to the floor."""

_SERVICES: Final[Mapping[DekScope, str]] = {"record": SERVICE, "batch": BATCHES}

FRESH: Final = "record keys"
SHARED: Final = "batch key"
FLOOR: Final = "the library's calls alone"


class Bare:
    """AES-256-GCM under one key."""

    def __init__(self) -> None:
        self._cipher: Final = AESGCM(AESGCM.generate_key(256))

    def encrypt(self, plaintexts: Sequence[bytes]) -> list[bytes]:
        """``nonce || ciphertext || tag`` of each."""
        encrypt, random = self._cipher.encrypt, os.urandom
        out = []
        for plaintext in plaintexts:
            nonce = random(12)
            out.append(nonce + encrypt(nonce, plaintext, None))
        return out

    def decrypt(self, records: Sequence[bytes]) -> list[bytes]:
        """The plaintexts."""
        decrypt = self._cipher.decrypt
        return [decrypt(record[:12], record[12:], None) for record in records]


Peers = Mapping[str, Turn]
"""Turns of other libraries at the same job, by name."""


async def cases(rig: Rig, peers: Mapping[tuple[str, str], Peers], calls_max: int) -> list[Case]:
    """Encrypt and decrypt at every size; ``peers`` by operation and size."""
    made = []
    for size, (octets, records, calls) in SIZES.items():
        plaintexts = [os.urandom(octets) for _ in range(records)]
        job = _Job(rig, plaintexts, min(calls, calls_max))
        made.append(job.encrypt(size, peers.get(("encrypt", size), {})))
        made += await job.decrypt(size, peers.get(("decrypt", size), {}))
    made.append(await _extremes(rig, min(256, 16 * calls_max)))
    return made


class _Job:
    """One size: the same plaintexts for everybody, ``calls`` times in a turn."""

    def __init__(self, rig: Rig, plaintexts: list[bytes], calls: int) -> None:
        self._rig: Final = rig
        self._plaintexts: Final = plaintexts
        self._calls: Final = calls
        self._units: Final = calls * len(plaintexts)
        self._bare: Final = Bare()

    def encrypt(self, size: str, peers: Peers) -> Case:
        contestants = {
            BASELINE: self._sync(lambda: self._bare.encrypt(self._plaintexts)),
            FRESH: self._async(lambda: self._seal("record")),
            SHARED: self._async(lambda: self._seal("batch")),
            **peers,
        }
        targets = _targets(size, RECORD_TARGETS, BATCH_TARGETS)
        return Case(f"encrypt {size}", "record", contestants, targets)

    async def decrypt(self, size: str, peers: Peers) -> list[Case]:
        """Beside bare, and for each kind of key beside the floor."""
        bare = self._bare.encrypt(self._plaintexts)
        fresh, shared = await self._seal("record"), await self._seal("batch")
        ours = {
            FRESH: self._async(lambda: self._open("record", fresh)),
            SHARED: self._async(lambda: self._open("batch", shared)),
        }
        floors = {
            FRESH: self._sync(Floor(self._plaintexts, fresh, shared=False).decrypt),
            SHARED: self._sync(Floor(self._plaintexts, shared, shared=True).decrypt),
        }
        baseline = {BASELINE: self._sync(lambda: self._bare.decrypt(bare))}
        targets = _targets(size, RECORD_FLOOR_TARGETS, BATCH_FLOOR_TARGETS)
        beside_floors = [
            Case(
                f"decrypt {size}, {keys}, beside its floor",
                "record",
                {FLOOR: floors[keys], **baseline, keys: ours[keys]},
                {name: target for name, target in targets.items() if name == keys},
                baseline=FLOOR,
            )
            for keys in (FRESH, SHARED)
        ]
        return [Case(f"decrypt {size}", "record", {**baseline, **ours, **peers}), *beside_floors]

    async def _seal(self, scope: DekScope) -> list[bytes]:
        gateway, service = self._rig.gateway, _SERVICES[scope]
        done = await gateway.encrypt(TENANT, service, self._plaintexts, dek_scope=scope)
        return done.values

    async def _open(self, scope: DekScope, records: list[bytes]) -> list[bytes]:
        done = await self._rig.gateway.decrypt(TENANT, _SERVICES[scope], records)
        if done.codes:
            raise AssertionError("a record of this very run did not open")
        return done.values

    def _sync(self, call: Callable[[], object]) -> Turn:
        def work() -> None:
            for _ in range(self._calls):
                call()

        return cpu(self._units, work)

    def _async(self, call: Callable[[], Awaitable[object]]) -> Turn:
        async def work() -> None:
            for _ in range(self._calls):
                await call()

        return cpu_async(self._units, work)


async def _extremes(rig: Rig, records: int) -> Case:
    """The engine where nothing can be shared: one record a call, or each of another batch."""
    plaintexts = [os.urandom(1 << 10) for _ in range(records)]
    bare, gateway = Bare(), rig.gateway
    scattered = []
    for plaintext in plaintexts:
        # The pool's keys come in batches of 256: one record of each.
        batch = await gateway.encrypt(TENANT, SERVICE, [plaintext] + [b""] * 255)
        scattered.append(batch.values[0])

    async def one_by_one() -> None:
        for plaintext in plaintexts:
            await gateway.encrypt(TENANT, SERVICE, [plaintext])

    async def open_scattered() -> None:
        await gateway.decrypt(TENANT, SERVICE, scattered)

    contestants = {
        BASELINE: cpu(records, lambda: bare.encrypt(plaintexts)),
        "encrypt, one record a call": cpu_async(records, one_by_one),
        "decrypt, every record of another batch": cpu_async(records, open_scattered),
    }
    return Case("1 KiB, nothing shared", "record", contestants)


def _targets(
    size: str, fresh: Mapping[str, float], shared: Mapping[str, float]
) -> dict[str, float]:
    found = {FRESH: fresh.get(size), SHARED: shared.get(size)}
    return {name: target for name, target in found.items() if target is not None}
