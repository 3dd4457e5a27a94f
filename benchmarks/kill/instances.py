"""What a hundred instances write to a region's control stream, by one process in their names.

Everybody's records are signed with their own keys, as they would be, and take the place of the one
before: leases by compare-and-set and with a time to live, peer leases and attestations as the last
word.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import uvloop
from kcm_deployment.members import Member
from kcm_deployment.trust_files import Trust
from kcm_devsystem.identities import SYSTEM
from kcm_killswitch.model.timing import Timing
from kcm_killswitch.replica.lease_keeper import LEASE_TTL
from kcm_runtime.config import BusAddress
from kcm_runtime.files.identity_file import load_identity
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.streams import put
from kcm_schemas import limits, subjects
from kcm_schemas.codec import encode
from kcm_schemas.control import KeyUseAttestation, Lease, PeerLease
from kcm_schemas.l1 import L1State
from kcm_schemas.roster import Role
from kcm_schemas.signed import Kind

from benchmarks.kill.talking import Lines, say

AT_ONCE_MAX: Final = 64
"""Writes under way at once: what many instances would have, and a bound."""

TIMING: Final = Timing()


class Instance:
    """One incarnation of one instance."""

    def __init__(self, member: Member, trust: Trust) -> None:
        self._member: Final = member
        self.identity: Final = load_identity(member.name, str(trust.key(member.name)), SYSTEM)
        self._incarnation: Final = os.urandom(limits.ID_SIZE)
        self.subject: Final = subjects.control_lease(member.region, member.name, self._incarnation)
        self.first = 0
        self.sequence = 0
        self.nonce = b""

    def lease(self) -> bytes:
        """Its next record."""
        self.nonce = os.urandom(limits.ID_SIZE)
        lease = Lease(
            instance=self._member.name,
            incarnation=self._incarnation,
            role=self._member.role,
            region=self._member.region,
            nonce=self.nonce,
            first=self.first,
            lease_ms=10_000,
            holds=bytes(32),
            registry=[bytes(16)] * 16,
            roster=1,
            ended=False,
        )
        return encode(self.identity.sign(Kind.LEASE, lease))

    def wrote(self, sequence: int) -> None:
        """It was acknowledged."""
        self.first = self.first or sequence
        self.sequence = sequence


class Region:
    """Everybody of a region."""

    def __init__(self, connection: Connection, settings: dict[str, Any]) -> None:
        trust = Trust(Path(settings["root"]))
        self._region: Final[str] = settings["region"]
        self._others: Final[list[str]] = settings["others"]
        self._connection: Final = connection
        self._keys: Final[int] = settings["keys"]
        cores = [Member(Role.CORE, self._region, n + 1) for n in range(settings["cores"])]
        gateways = [Member(Role.GATEWAY, self._region, n + 1) for n in range(settings["gateways"])]
        self._cores: Final = [Instance(member, trust) for member in cores]
        self._all: Final = self._cores + [Instance(member, trust) for member in gateways]
        self._slots: Final = asyncio.Semaphore(AT_ONCE_MAX)
        self.writes = 0
        self.bytes = 0

    async def fill(self) -> None:
        """Write everything once, as fast as it goes."""
        await asyncio.gather(*(self._lease(one) for one in self._all))
        await asyncio.gather(*(self._lease(one) for one in self._all))
        await asyncio.gather(
            *(self._fence(other) for other in self._others),
            *(self._proof(number) for number in range(self._keys)),
        )

    async def live(self, seconds: float, keys: int) -> None:
        """Write at everybody's real rates; ``keys`` of the customers' keys are in use."""
        every = TIMING.probe_interval_s * (1 - TIMING.probe_jitter / 2)
        pull = TIMING.pull_every_s * (1 - 1 / 8)
        until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:

            def often(each_s: float, write: Callable[[], Awaitable[None]]) -> None:
                group.create_task(_repeat(each_s, until, write))

            for one in self._all:
                often(TIMING.renew_every_s, lambda one=one: self._lease(one))  # type: ignore[misc]
            for other in self._others:
                often(pull, lambda other=other: self._fence(other))  # type: ignore[misc]
                # A round begins with an own record, and so does every answer to another region.
                often(pull, lambda: self._lease(random.choice(self._cores)))
                often(pull, lambda: self._lease(random.choice(self._cores)))
            if keys:
                often(every / keys, lambda: self._proof(random.randrange(keys)))

    async def _lease(self, one: Instance) -> None:
        body, expected = one.lease(), one.sequence
        try:
            one.wrote(await self._put(one.subject, body, expected=expected, ttl=LEASE_TTL))
        except Exception:  # noqa: BLE001 - its other write was under way
            self.writes -= 1

    async def _fence(self, other: str) -> None:
        core = random.choice(self._cores)
        peer_lease = PeerLease(
            region=self._region,
            other=other,
            position=core.sequence,
            nonce=core.nonce,
            stored=0,
            hold=bytes(16),
            roster=1,
        )
        body = encode(core.identity.sign(Kind.PEER_LEASE, peer_lease))
        await self._put(subjects.control_peer_lease(self._region, other), body)

    async def _proof(self, number: int) -> None:
        core = random.choice(self._cores)
        attestation = KeyUseAttestation(
            region=self._region,
            link=f"link-{number}",
            link_revision=1,
            key_version="0123456789abcdef",
            principal="uid-1000",
            state=L1State.ENABLED,
            position=core.sequence,
            nonce=core.nonce,
        )
        body = encode(core.identity.sign(Kind.KEY_USE, attestation))
        digest = number.to_bytes(32, "big")[::-1]
        await self._put(subjects.control_key_use(self._region, f"link-{number}", digest), body)

    async def _put(
        self, subject: str, body: bytes, *, expected: int | None = None, ttl: str | None = None
    ) -> int:
        async with self._slots:
            self.writes += 1
            self.bytes += len(subject) + len(body)
            return await put(self._connection, subject, body, expected=expected, ttl=ttl)


async def _repeat(each_s: float, until: float, write: Callable[[], Awaitable[None]]) -> None:
    """At a rate, wherever in the interval it began; who is late catches up."""
    due = time.monotonic() + random.uniform(0, each_s)
    under_way: set[asyncio.Task[None]] = set()
    while due < until:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        task = asyncio.ensure_future(write())
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        due += each_s
    await asyncio.gather(*under_way)


async def serve() -> None:
    """Do as told until standard input ends."""
    lines = await Lines.open()
    settings = await lines.next()
    assert settings is not None
    connection = Connection(BusAddress.model_validate(settings["address"]), "instances")
    await connection.start()
    region = Region(connection, settings)
    say(ready=True)
    while (told := await lines.next()) is not None:
        region.writes = region.bytes = 0
        started, worked = time.monotonic(), time.process_time()
        if told["do"] == "fill":
            await region.fill()
        else:
            await region.live(told["seconds"], told["keys"])
        say(
            writes=region.writes,
            bytes=region.bytes,
            seconds=time.monotonic() - started,
            cpu=time.process_time() - worked,
        )
    await connection.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
