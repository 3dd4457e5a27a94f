"""What the key monitor costs a region, by how many customers' keys are in use.

A running region with softkeys, the cheapest provider. Probes are counted where they are told: each
one that was allowed is an attestation in the region's control stream. Processor time is that of the
Cores and of the children in which they use keys. Where there are more keys than may be in use,
tenants are unloaded; that no lease is lengthened for it shows in the answers (``turns``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kcm import Admin, Client
from kcm._internal import statements
from kcm.errors import UnknownService, UnknownTenant
from kcm_killswitch.model.probe_scheduler import PROBES_PER_S
from kcm_schemas.roster import Role
from nats.aio.client import Client as Nats

from benchmarks.kill.living import SERVICE, System
from benchmarks.kill.sample import Figure
from benchmarks.scale.filling import filling
from benchmarks.scale.processor import worked
from benchmarks.scale.turns import Uses, from_both_ends, in_turn, listening

PART: Final = "uses of customers' keys"

SETTLE_S: Final = 12.0
"""Seconds from opening to counting: an interval, so that first probes are spread."""

USED_PER_S: Final = 20.0
"""Tenants used in a second, in turn: opening one takes some 30 ms of the region's processors."""

AT_ONCE: Final = 8
"""Tenants made at once."""

HEARD_MAX_S: Final = 10.0
"""Seconds within which every instance has heard of a new tenant."""

SHARED: Final = "shared"
"""The key of the tenants that have one together."""


@dataclass(frozen=True, slots=True)
class Keys:
    """How many keys, each with a tenant, in use at each step; and how long to look."""

    steps: tuple[int, ...] = (100, 400, 1_400)
    shared: int = 400
    """Tenants on one key."""
    seconds: float = 20.0
    settle_s: float = SETTLE_S
    used_per_s: float = USED_PER_S


async def measure(at: System, keys: Keys) -> list[Figure]:
    """Many tenants on one key first, then more and more keys in use."""
    region, found = at.regions[0], []
    async with (
        Admin.open(at.context) as admin,
        Client.connect(at.context, region) as client,
        filling(at, region) as fill,
        listening(at, region) as (bus, uses),
    ):
        work = _Work(at, admin, client, region)
        look = _Look(at, region, admin, bus, uses, keys)
        await fill.links([SHARED])
        await work.all([(f"shared-{number:05}", SHARED) for number in range(keys.shared)])
        found += await look.rest(f"{keys.shared} tenants on one key")
        made = 0
        for step in keys.steps:
            names = [_own(number) for number in range(made, step)]
            await fill.links(names)
            await work.all([(name, name) for name in names])
            made = step
            found += await look.rest(f"{step} keys opened")
            everybody = from_both_ends([_own(number) for number in range(step)])
            found += await look.used(everybody, f"{step} keys")
    return found


def _own(number: int) -> str:
    """A tenant and the key that it has alone."""
    return f"own-{number:05}"


class _Work:
    """Makes a tenant on a link and uses it once, through the Gateway."""

    def __init__(self, at: System, admin: Admin, client: Client, region: str) -> None:
        self._at: Final = at
        self._admin: Final = admin
        self._client: Final = client
        self._region: Final = region

    async def all(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Each of these tenants on its link, several at once."""
        rest = iter(pairs)

        async def worker() -> None:
            for tenant, link in rest:
                await self._use(tenant, link)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(worker())

    async def _use(self, tenant: str, link: str) -> None:
        signer, regions = self._admin.identity, self._at.regions
        record = statements.tenant(signer, tenant, link=link, regions=regions, region_quorum="all")
        await self._admin.put(self._region, "tenant", record)
        service = statements.service(signer, tenant, SERVICE)
        await self._admin.put(self._region, "service", service)
        end = time.monotonic() + HEARD_MAX_S
        while True:
            try:
                done = await self._client.encrypt(tenant, SERVICE, [b""], deadline_s=30)
                _ = done.values
            except (UnknownTenant, UnknownService):
                # On a machine that is busy another instance hears of it a moment later.
                if time.monotonic() >= end:
                    raise
                await asyncio.sleep(0.1)
            else:
                return


async def _sealed(admin: Admin, at: System, region: str) -> tuple[int, int, int]:
    """Tenants unloaded for too many keys by all Cores; keys in use in one at most; the most."""
    names = [one.name for one in at.options.members if one.role is Role.CORE]
    uses = [await admin.key_use(region, name) for name in names]
    return (
        sum(one.unloaded_all for one in uses),
        max(one.in_use for one in uses),
        min(one.most for one in uses),
    )


class _Look:
    """Looks at the region, at rest and while its tenants are used in turn."""

    def __init__(
        self, at: System, region: str, admin: Admin, client: Nats, uses: Uses, keys: Keys
    ) -> None:
        self._at: Final = at
        self._region: Final = region
        self._admin: Final = admin
        self._client: Final = client
        self._uses: Final = uses
        self._keys: Final = keys

    async def rest(self, label: str) -> list[Figure]:
        """Nobody uses anything: what the key monitor alone costs."""
        keys, uses = self._keys, self._uses
        await asyncio.sleep(keys.settle_s)
        before, spent, started = uses.attestations, worked(self._at, "core"), time.monotonic()
        await asyncio.sleep(keys.seconds)
        passed = time.monotonic() - started
        per_s = (uses.attestations - before) / passed
        busy = 100 * (worked(self._at, "core") - spent) / passed
        unloaded, in_use, most = await _sealed(self._admin, self._at, self._region)
        bound = (self._at.options.probes_per_s or PROBES_PER_S) * self._at.options.cores
        return [
            Figure(PART, f"{label}: probes a second", per_s, "1/s", bound),
            Figure(PART, f"{label}: processor, Cores of {self._region}", busy, "%"),
            Figure(PART, f"{label}: keys in use in one Core", in_use, "", most),
            Figure(PART, f"{label}: tenants unloaded for it so far", unloaded, ""),
        ]

    async def used(self, tenants: Sequence[str], label: str) -> list[Figure]:
        """All of them in turn: who was unloaded opens again, and somebody else is unloaded."""
        keys, uses = self._keys, self._uses
        unloaded = (await _sealed(self._admin, self._at, self._region))[0]
        attestations, opened = uses.attestations, uses.opened
        spent, started = worked(self._at, "core"), time.monotonic()
        done = await in_turn(self._client, self._region, tenants, keys.used_per_s, keys.seconds)
        passed = time.monotonic() - started
        busy = 100 * (worked(self._at, "core") - spent) / passed
        now, in_use, most = await _sealed(self._admin, self._at, self._region)
        label = f"{label}, used in turn"
        return [
            Figure(PART, f"{label}: answers", len(done.answers), ""),
            Figure(
                PART,
                f"{label}: refused",
                done.refused.total(),
                "",
                note=", ".join(f"{why} {count}" for why, count in done.refused.items()),
            ),
            Figure(
                PART,
                f"{label}: attestations a second",
                (uses.attestations - attestations) / passed,
                "1/s",
            ),
            Figure(PART, f"{label}: opened a second", (uses.opened - opened) / passed, "1/s"),
            Figure(PART, f"{label}: unloaded for it a second", (now - unloaded) / passed, "1/s"),
            Figure(PART, f"{label}: processor, Cores of {self._region}", busy, "%"),
            Figure(PART, f"{label}: keys in use in one Core", in_use, "", most),
            Figure(
                PART,
                f"{label}: from a key's use to an answer's end",
                await done.longest_s(uses),
                "s",
                self._at.options.timing.l1_lease_s,
            ),
        ]
