"""The engine: encrypts and decrypts batches for a tenant's service, in this process.

    gateway = Gateway(...)
    records = await gateway.encrypt("acme", "crm", plaintexts)
    plains = await gateway.decrypt("acme", "crm", records.values)

A record is encrypted with AES-256-GCM under its own data key (L4), or, with ``dek_scope="batch"``,
under one that the batch shares, with a counter in the nonce. The record's header contains the
wrapped data key, and the whole header is associated data together with the application context.

A piece of a batch is processed without an await, and its generation is compared before any of it is
returned: work that raced a purge has no output, ciphertext included. Work that outlived the lease
of its keys has none either, and is repeated once. A bad record gets its own code and does not
affect the others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, Literal, TypeVar

from kcm_keymem.arena import Purged
from kcm_keymem.random import KeyRandomness
from kcm_killswitch.model.admission import Admission, Permit
from kcm_killswitch.model.control_lease import FOREVER
from kcm_runtime.host import Host
from kcm_runtime.nats.work_slots import next_turn
from kcm_runtime.ownership import Owner
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.names import is_name
from kcm_schemas.results import Results

from kcm_gateway.config import EngineSettings
from kcm_gateway.contexts import aad_ends
from kcm_gateway.core_client import CoreClient
from kcm_gateway.engine_status import EngineStatus
from kcm_gateway.envelope import EnvelopeOf, cached_envelope
from kcm_gateway.keys.asks import AppAsks
from kcm_gateway.keys.blocks import Blocks
from kcm_gateway.keys.cache import KeyCache
from kcm_gateway.keys.lookup import KeyLookup
from kcm_gateway.keys.pool import KeyPool
from kcm_gateway.keys.release import DeferredRelease
from kcm_gateway.keys.unwrap_batcher import UnwrapBatcher
from kcm_gateway.pieces import Piece, Work, parts_of, work_through

BATCH_KEY_BYTES_MAX: Final = 1 << 32
"""Bytes under one shared data key: far below AES-GCM's bound, so that one key exposes little."""

_CLOSED: Final = "the engine is closed"

DekScope = Literal["record", "batch"]

T = TypeVar("T")

Fetch = Callable[[str], Awaitable[None]]
"""Looks a tenant up again, before it is reported as unknown."""


class Batch(Results):
    """Results in the order of the input.

    ``values`` raises unless every record is ok; ``results`` has each record's value or exception.
    ``lease_s`` is the answer lease in seconds, counted from the end of the call.
    """

    __slots__ = ("lease_s",)

    def __init__(self, values: list[bytes], codes: list[Code], lease_s: float) -> None:
        super().__init__(values, codes)
        self.lease_s: Final = lease_s

    def within(self, left_s: float) -> Batch:
        """Return the same results with an answer lease of at most ``left_s`` seconds."""
        return self if self.lease_s <= left_s else Batch(self._values, self.codes, left_s)


class Gateway:
    """Encrypts and decrypts for the tenants of a region."""

    def __init__(
        self,
        host: Host,
        admission: Admission,
        *,
        core: CoreClient,
        randomness: KeyRandomness,
        settings: EngineSettings,
        fetch: Fetch | None = None,
        blocks: Blocks | None = None,
        envelope_of: EnvelopeOf = cached_envelope,
    ) -> None:
        """``randomness`` generates the data keys; it fills locked memory, unlike the host's."""
        self._region: Final = host.me.region
        self._core: Final = core
        self._admission: Final = admission
        self._clock: Final = host.clock
        self._random: Final = randomness
        self._settings: Final = settings
        self._blocks: Final = blocks if blocks is not None else Blocks()
        self._clearing: Final = DeferredRelease(self._blocks)
        self._fetch: Final = fetch
        self._envelope_of: Final = envelope_of
        self._owner: Final = Owner("the engine")
        self._closed = False
        self._cache: Final = KeyCache(self._blocks, settings.cache_keys_max)
        self._unwrapper: Final = UnwrapBatcher(core, self._blocks)
        self._lookup: Final = KeyLookup(
            self._unwrapper, self._cache, self._blocks, host.clock, self._recheck
        )
        self._pools: dict[str, dict[str, KeyPool]] = {}

    async def encrypt(
        self,
        tenant: str,
        service: str,
        plaintexts: Sequence[bytes],
        contexts: Sequence[bytes] | bytes | None = None,
        *,
        dek_scope: DekScope = "record",
    ) -> Batch:
        """Encrypt; ``contexts`` is one for all (``bytes``), or a list with one for each plaintext.

        Raises ``KcmError`` for the whole batch: ``malformed``, ``tenant_killed``,
        ``unknown_tenant``, ``unknown_service``, ``tenant_unavailable``, ``unavailable`` …
        """
        ends = aad_ends(contexts, len(plaintexts))
        permit = await self._admit(tenant, service)
        work = partial(self._encrypt, permit, service, plaintexts, ends, dek_scope)
        pieces, left = await self._pieces(permit, plaintexts, work)
        return Batch(_joined([piece.values for piece in pieces]), [], left)

    async def decrypt(
        self,
        tenant: str,
        service: str,
        records: Sequence[bytes],
        contexts: Sequence[bytes] | bytes | None = None,
        asks: AppAsks | None = None,
    ) -> Batch:
        """Decrypt; every record has its own code.

        ``asks`` is what an application asks of Cores, for at most ``RECORDS_MAX`` records.

        The codes are ``malformed``, ``wrong_region``, ``forbidden`` (another tenant's or service's
        record), ``key_destroyed`` and ``tampered``. Raises ``KcmError`` for the whole batch.
        """
        ends = aad_ends(contexts, len(records))
        permit = await self._admit(tenant, service)
        work = partial(self._decrypt, permit, service, records, ends, asks)
        pieces, left = await self._pieces(permit, records, work)
        codes = _joined([piece.codes for piece in pieces])
        ok = codes.count(Code.OK) == len(codes)
        return Batch(_joined([piece.values for piece in pieces]), [] if ok else codes, left)

    async def carry(self, core: str, verb: str, body: bytes) -> bytes:
        """Pass on what begins an application's session with a Core; see ``CoreClient.carry``."""
        self._check_open()
        return await self._core.carry(core, verb, body)

    def purge(self, tenant: str) -> int:
        """Wipe every key of a tenant and fail its waiting operations; returns the number of keys.

        No key is left when this returns; slower cleaning follows in pieces (``DeferredRelease``).
        """
        count = self._blocks.purge(tenant)
        self._cache.purge(tenant)
        self._unwrapper.purge(tenant)
        self._clearing.later(self._pools.pop(tenant, {}).values())
        return count

    def status(self) -> EngineStatus:
        """Count what is in memory and in progress."""
        pools = [pool for services in self._pools.values() for pool in services.values()]
        return EngineStatus(
            tenants=len(self._blocks.tenants),
            pools=len(pools),
            pooled_keys=sum(pool.available for pool in pools),
            cached_keys=self._cache.count,
            requests=self._unwrapper.requests + sum(pool.refills for pool in pools),
            queues=self._unwrapper.queues,
        )

    def close(self) -> None:
        """Wipe everything, and serve no more."""
        self._closed = True
        for tenant in {*self._blocks.tenants, *self._pools}:
            self.purge(tenant)
        self._clearing.finish()
        self._core.close()

    async def _pieces(
        self, permit: Permit, every: Sequence[bytes], work: Work
    ) -> tuple[list[Piece], float]:
        """Return all pieces, and their answer lease in seconds."""
        try:
            return await work_through(
                parts_of(every), work, partial(self._recheck, permit), self._clock.elapsed
            )
        except Purged:
            if self._closed:
                raise KcmError(Code.UNAVAILABLE, _CLOSED) from None
            raise self._admission.refusal(permit.tenant) from None

    async def _admit(self, tenant: str, service: str) -> Permit:
        """Admit an operation, once; an unknown tenant is looked up, and admitted if it is found."""
        self._check_open()
        self._owner.check()
        check_names(tenant, service)
        try:
            return self._admission.admit(tenant, self._clock.elapsed())
        except KcmError as error:
            if error.code is not Code.UNKNOWN_TENANT or self._fetch is None:
                raise
        await self._fetch(tenant)
        self._check_open()
        return self._admission.admit(tenant, self._clock.elapsed())

    def _check_open(self) -> None:
        """Refuse work once the engine is closed: its instance states that it holds no key."""
        if self._closed:
            raise KcmError(Code.UNAVAILABLE, _CLOSED)

    def _recheck(self, permit: Permit) -> float:
        """Check an operation after a wait; returns for how many seconds its output may be accepted.

        Raises ``tenant_killed`` if the generation changed, ``unavailable`` if the engine is closed,
        and as ``Admission.recheck`` does.
        """
        self._check_open()
        return self._admission.recheck(permit, self._clock.elapsed())

    async def _next_turn(self, permit: Permit) -> None:
        """Let others have their turns after an answer of a Core; raises as ``_recheck`` does."""
        await next_turn()
        self._recheck(permit)

    async def _encrypt(
        self,
        permit: Permit,
        service: str,
        every: Sequence[bytes],
        all_ends: Sequence[bytes],
        dek_scope: DekScope,
        part: slice,
        lease_until: float,
    ) -> Piece:
        tenant, plaintexts, ends = permit.tenant, every[part], all_ends[part]
        pool = self._pool(tenant, service)
        groups = _batches(plaintexts) if dek_scope == "batch" else []
        count = len(groups) if groups else len(plaintexts)
        waits = pool.available < count
        try:
            segments = await pool.take(permit, count, lease_until)
        except BaseException:
            if pool.idle:
                self._forget(tenant, service, pool)
            raise
        try:
            if waits:
                await self._next_turn(permit)
            until = min([segment.lease.until for segment in segments], default=FOREVER)
            envelope = self._envelope_of(self._region, tenant, service)
            todo = iter(groups)
            out: list[bytes] = []
            for segment in segments:
                if dek_scope == "batch":
                    out += envelope.seal_shared(segment, todo, plaintexts, ends)
                else:
                    own = slice(len(out), len(out) + segment.count)
                    out += envelope.seal_each(segment, plaintexts[own], ends[own])
            return Piece(out, [], until)
        finally:
            pool.done(segments)

    async def _decrypt(
        self,
        permit: Permit,
        service: str,
        every: Sequence[bytes],
        all_ends: Sequence[bytes],
        asks: AppAsks | None,
        part: slice,
        lease_until: float,
    ) -> Piece:
        records, ends = every[part], all_ends[part]
        envelope = self._envelope_of(self._region, permit.tenant, service)
        values = [b""] * len(records)
        codes = [Code.OK] * len(records)
        groups = envelope.sort(records, codes)
        with await self._lookup.open(permit, service, list(groups), lease_until, asks) as opened:
            if opened.waited:
                await self._next_turn(permit)
            named = list(groups.values())
            for at, code in opened.refused.items():
                for position in named[at]:
                    codes[position] = code
            envelope.open(opened.each(named), records, ends, values, codes)
            until = opened.until
        return Piece(values, codes, until)

    def _forget(self, tenant: str, service: str, pool: KeyPool) -> None:
        """Drop an idle pool, so that pools of names that do not exist do not accumulate."""
        pools = self._pools.get(tenant, {})
        if pools.get(service) is pool:
            del pools[service]
            if not pools:
                del self._pools[tenant]

    def _pool(self, tenant: str, service: str) -> KeyPool:
        pools = self._pools.setdefault(tenant, {})
        pool = pools.get(service)
        if pool is None:
            pool = pools[service] = KeyPool(
                tenant,
                service,
                core=self._core,
                recheck=self._recheck,
                blocks=self._blocks,
                clock=self._clock,
                randomness=self._random,
                keys_max=self._settings.pool_keys_max,
            )
        return pool


def check_names(tenant: str, service: str) -> None:
    """Raise ``malformed`` unless both are names."""
    if not (is_name(tenant) and is_name(service)):
        raise KcmError(Code.MALFORMED, "a name needs 1 to 63 characters of a-z, 0-9 and -")


def _joined(lists: list[list[T]]) -> list[T]:
    """Return one list; a single one is not copied."""
    return lists[0] if len(lists) == 1 else [one for part in lists for one in part]


def _batches(plaintexts: Sequence[bytes]) -> list[range]:
    """Return the positions that share a data key: a whole piece, unless it has too many bytes."""
    groups, start, size = [], 0, 0
    for position, plaintext in enumerate(plaintexts):
        if size and size + len(plaintext) > BATCH_KEY_BYTES_MAX:
            groups.append(range(start, position))
            start, size = position, 0
        size += len(plaintext)
    groups.append(range(start, len(plaintexts)))
    return groups
