"""What the checks of leases cost: the same engine and wraps, with them and with none.

A Core and a Gateway in this process, joined by a function call, twice. Once everything is asked as
in production: control lease, peer leases of two other regions, the lease of the customer's key, the
caller's incarnation on record. Once whoever asks is told yes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from kcm_core.assembly.key_service import key_service
from kcm_core.keys.vault import SealKey, Vault
from kcm_core.root_keys.monitor import Ask
from kcm_deployment.members import Member
from kcm_deployment.trust_files import Trust
from kcm_devsystem.identities import APP, make_trust
from kcm_gateway.assembly import assemble
from kcm_gateway.config import EngineSettings
from kcm_gateway.core_client import CoreClient, Unwrapping, caller_of
from kcm_keymem.arena import ScratchPool
from kcm_keymem.random import SystemKeyRandomness
from kcm_killswitch.model.admission import Admission, Permit
from kcm_killswitch.model.control_lease import FOREVER
from kcm_killswitch.model.freshness import Freshness
from kcm_killswitch.model.held_keys import HeldKeys
from kcm_killswitch.model.incarnations import Incarnations
from kcm_killswitch.model.key_leases import AttestedKey, Target
from kcm_killswitch.model.log_position import NOWHERE, LogPosition
from kcm_killswitch.model.registry import Registry
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.model.revocations import Revocations
from kcm_killswitch.model.timing import ANSWER_MAX_S, Timing
from kcm_runtime.audit.emitter import AuditEmitter
from kcm_runtime.clock import SystemClock
from kcm_runtime.host import Host
from kcm_runtime.instance import InstanceContext
from kcm_schemas import limits
from kcm_schemas.codec import encode
from kcm_schemas.codes import KcmError
from kcm_schemas.control import Lease
from kcm_schemas.data import Failure
from kcm_schemas.limits import KEY_SIZE
from kcm_schemas.registry import Link, Service, Tenant, WrappedRoot
from kcm_schemas.roster import Role
from kcm_trust.verify import Verifier, verify_roster

from benchmarks.kill.living import REGIONS
from benchmarks.measure import BASELINE, Case, Turn, cpu_async
from benchmarks.rig import (
    deliver,
    embedding,
    gateway_ports,
    key_ports,
    member_of,
    no_broker,
    served,
)

REGION: Final = REGIONS[0]
TENANT: Final = "acme"
SERVICE: Final = "records"

TARGET: Final = 0.97
"""Ratio of speed to the same work unchecked."""

RECORDS: Final = 1024
KEYS: Final = 256
CALLS: Final = 16
"""Of a turn: a few per cent are looked for, so it must not be too short."""

_LONG: Final = Timing(partition_grace_s=3600, l1_lease_s=3600)
"""Nobody renews anything here."""


class Allowing(Admission):
    """Says yes."""

    def admit(self, tenant: str, now: float) -> Permit:  # noqa: ARG002 - an Admission
        """Yes."""
        return Permit(tenant, 0, FOREVER)

    def recheck(self, permit: Permit, now: float) -> float:  # noqa: ARG002 - an Admission
        """Yes."""
        return ANSWER_MAX_S

    def live(self, tenant: str, now: float) -> bool:  # noqa: ARG002 - an Admission
        """Yes."""
        return True


class AllIncarnations(Incarnations):
    """Knows everybody."""

    def knows(self, instance: str, incarnation: bytes) -> bool:  # noqa: ARG002 - a Incarnations
        """Yes."""
        return True


class Known:
    """A key's watch that proves it with this incarnation's own mark, and never asks again."""

    def __init__(self, admission: Admission, freshness: Freshness) -> None:
        self._admission: Final = admission
        self._freshness: Final = freshness

    def ask(self, _tenant: str, root: WrappedRoot) -> Ask:
        """A root is about to be opened."""
        target = Target(root.link, root.link_revision, root.key_version)
        return Ask(target, self._freshness.position, 0.0)

    def answered(self, ask: Ask, _state: object, principal: str = "") -> None:
        """The key was used."""
        if ask.position is not None:
            self._freshness.attested(AttestedKey(ask.target, principal), ask.position)

    def opened(self, tenant: str, ask: Ask, principal: str) -> None:
        """The root is open."""
        self._admission.open(tenant, AttestedKey(ask.target, principal))


class Pair:
    """A Core and a Gateway; ``checked`` or not."""

    def __init__(
        self,
        trust: Trust,
        verifier: Verifier,
        audit: AuditEmitter,
        me: InstanceContext,
        *,
        checked: bool,
    ) -> None:
        clock, randomness = SystemClock(), SystemKeyRandomness()
        region = next(one for one in verifier.roster.regions if one.region == REGION)
        caller = member_of(trust, verifier, Member(Role.GATEWAY, REGION, 1, APP), randomness)
        self._registry: Final = Registry()
        revocations = Revocations(self._registry, REGION)
        freshness = _knowing(clock.elapsed())
        kind = Admission if checked else Allowing
        admission = kind(freshness, revocations, self._registry, REGION)
        incarnations = _registered(caller) if checked else AllIncarnations()
        seal = SealKey(region.seal_key_id, str(trust.seal_key(REGION)))
        self._vault: Final = Vault(REGION, seal, randomness)
        state = ReplicaState(self._registry, revocations, freshness, admission)
        ports = key_ports(
            Host(me, clock, randomness, audit.emit),
            state,
            region,
            self._vault,
            randomness,
            audit=audit,
        )
        keys = key_service(ports, Known(admission, freshness), incarnations)
        self._creator: Final = keys.creator
        self._sessions: Final = keys.sessions
        self._wrapping: Final = keys.wrapping
        self.core: Final = CoreClient(
            self._ask, caller_of(caller, HeldKeys(revocations, "instance")), clock, randomness, 5.0
        )
        host = Host(caller, clock, randomness, audit.emit)
        self.gateway: Final = assemble(
            gateway_ports(host, state, self._ask), EngineSettings()
        ).engine

    async def open(self) -> None:
        """Make the tenant."""
        link = Link(link=TENANT, revision=1, uri="softkey:/bench/root", model="byok")
        tenant = Tenant(
            tenant=TENANT, revision=1, link=TENANT, regions=list(REGIONS), region_quorum="all"
        )
        service = Service(tenant=TENANT, service=SERVICE, revision=1)
        for record in (embedding(), link, tenant, service):
            self._registry.put(record)
        await self._creator.root(tenant, link)
        await self._creator.service(service)

    def close(self) -> None:
        """Wipe everything."""
        self.gateway.close()
        self._sessions.close()
        self._vault.purge(TENANT)

    async def _ask(self, subject: str, body: bytes, _timeout_s: float) -> bytes:
        try:
            return await served(self._wrapping, self._sessions, subject, body)
        except KcmError as error:
            return encode(Failure(v=1, error=error.code, detail=error.detail))


@asynccontextmanager
async def cases(calls: int) -> AsyncIterator[list[Case]]:
    """Everything with and without, as long as this lasts."""
    directory = Path(tempfile.mkdtemp(prefix="kcm-bench-"))
    try:
        members = [Member(Role.CORE, REGION, 1), Member(Role.GATEWAY, REGION, 1, APP)]
        public = make_trust(directory, members, list(REGIONS), 1)
        trust = Trust(directory)
        verifier = Verifier(verify_roster(trust.roster.read_bytes(), public, 0))
        me = member_of(trust, verifier, members[0], SystemKeyRandomness())
        audit = AuditEmitter(no_broker(directory), me, SystemClock(), deliver=deliver)
        await audit.start()
        pairs: dict[str, Pair] = {}
        try:
            for name, checked in ((BASELINE, False), ("checked", True)):
                pairs[name] = Pair(trust, verifier, audit, me, checked=checked)
            for pair in pairs.values():
                await pair.open()
            yield await _cases(pairs, calls)
        finally:
            for pair in pairs.values():
                pair.close()
            await audit.close()
    finally:
        shutil.rmtree(directory)


async def _cases(pairs: dict[str, Pair], calls: int) -> list[Case]:
    plain = [os.urandom(1024) for _ in range(RECORDS)]
    turns: dict[str, dict[str, Turn]] = {}
    for name, pair in pairs.items():
        for job, turn in (await _turns(pair, plain, calls)).items():
            turns.setdefault(job, {})[name] = turn
    return [
        Case(
            f"leases checked: {job}",
            "record" if "crypt" in job else "key",
            contestants,
            {} if "a call" in job else {"checked": TARGET},
        )
        for job, contestants in turns.items()
    ]


async def _turns(pair: Pair, plain: list[bytes], calls: int) -> dict[str, Turn]:
    work = Work(pair, plain)
    await work.prepare()
    return {
        f"encrypt {RECORDS} records of 1 KiB": _again(work.encrypt, calls, RECORDS),
        f"decrypt {RECORDS} records of 1 KiB": _again(work.decrypt, calls, RECORDS),
        f"wrap {KEYS} keys": _again(work.wrap, calls, KEYS),
        f"unwrap {KEYS} keys": _again(work.unwrap, calls, KEYS),
        "encrypt 1 KiB, one record a call": _again(work.one, calls, KEYS),
    }


def _again(work: Callable[[], Awaitable[None]], calls: int, units: int) -> Turn:
    async def repeated() -> None:
        for _ in range(calls):
            await work()

    return cpu_async(calls * units, repeated)


class Work:
    """What is done with a pair, once each."""

    def __init__(self, pair: Pair, plain: list[bytes]) -> None:
        self._pair: Final = pair
        self._plain: Final = plain
        self._pool: Final = ScratchPool()
        self._keys: Final = os.urandom(KEYS * KEY_SIZE)
        self._sealed: list[bytes] = []
        self._wrapped = b""

    async def prepare(self) -> None:
        """Make what is opened later."""
        self._sealed = (await self._pair.gateway.encrypt(TENANT, SERVICE, self._plain)).values
        await self.wrap()

    async def wrap(self) -> None:
        """Data keys, through the sealed channel."""
        with self._pool.borrow(KEYS * KEY_SIZE) as keys:
            keys[:] = self._keys
            _, self._wrapped = await self._pair.core.wrap(TENANT, SERVICE, "record", keys)

    async def unwrap(self) -> None:
        """The same way back."""
        with self._pool.borrow(KEYS * KEY_SIZE) as out:
            wanted = Unwrapping(TENANT, SERVICE, "record", 1, self._wrapped)
            _, bad = await self._pair.core.unwrap(wanted, out)
            if bad:
                raise AssertionError("a key of this very run did not open")

    async def encrypt(self) -> None:
        """A batch, a key for each record."""
        await self._pair.gateway.encrypt(TENANT, SERVICE, self._plain)

    async def decrypt(self) -> None:
        """A batch."""
        if (await self._pair.gateway.decrypt(TENANT, SERVICE, self._sealed)).codes:
            raise AssertionError("a record of this very run did not open")

    async def one(self) -> None:
        """As many calls as keys, of one record each."""
        for _ in range(KEYS):
            await self._pair.gateway.encrypt(TENANT, SERVICE, self._plain[:1])


def _knowing(now: float) -> Freshness:
    """Everything is known, as of now."""
    freshness = Freshness(_LONG)
    freshness.lease.length_s = 3600.0  # type: ignore[misc] # no system may have it so
    mark = LogPosition(1, os.urandom(limits.ID_SIZE))
    freshness.wrote(now, 0, mark)
    freshness.leased(mark, own=True)
    for other in REGIONS[1:]:
        freshness.peer_leased(other, mark, NOWHERE)
    freshness.delivered(1)
    return freshness


def _registered(caller: InstanceContext) -> Incarnations:
    incarnations = Incarnations()
    incarnations.take(
        Lease(
            instance=caller.name,
            incarnation=caller.incarnation,
            role=caller.role,
            region=caller.region,
            nonce=os.urandom(limits.ID_SIZE),
            first=1,
            lease_ms=10_000,
            holds=bytes(32),
            registry=[bytes(16)] * 16,
            roster=1,
            ended=False,
        ),
        1,
        0.0,
    )
    return incarnations
