"""Filling a region with tenants that nobody asks for: signed and stored as true ones are.

Making each through a Core would take half an hour for ten thousand. So their records are signed
with the same keys and put where a Core puts them: registry and wrapped keys, each in both stores.
What is in the wrapped keys is nothing, for nobody opens them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

from kcm._internal import statements
from kcm_broker.roles import Account
from kcm_core.registry.stores import PREFIX
from kcm_deployment.members import Member
from kcm_deployment.trust_files import Trust
from kcm_devsystem.broker_users import visitors_address
from kcm_devsystem.identities import OPERATOR, SYSTEM
from kcm_devsystem.root_keys import RootKeys as Softkeys
from kcm_runtime.config import BusAddress
from kcm_runtime.files.identity_file import load_identity
from kcm_runtime.nats.connection import Connection
from kcm_runtime.nats.streams import put
from kcm_schemas import limits, subjects
from kcm_schemas.codec import decode, encode
from kcm_schemas.registry import (
    Accepted,
    RegistryEntry,
    RootKeys,
    ServiceKeys,
    WrappedRoot,
    WrappedService,
)
from kcm_schemas.roster import Role, Roster
from kcm_schemas.signed import Kind, read_signed
from kcm_trust.envelopes import statement_digest

from benchmarks.kill.living import System

T = TypeVar("T")

AT_ONCE: Final = 64
"""Writes under way at once."""


def filler(number: int) -> str:
    """The name of a tenant that nobody asks for."""
    return f"filler-{number:05}"


class Filling:
    """Writes records to one region in the names of an operator and of a Core."""

    def __init__(self, at: System, region: str, connection: Connection, vault: Connection) -> None:
        trust, core = Trust(at.options.directory), Member(Role.CORE, region, 1)
        self._region: Final = region
        self._regions: Final = at.regions
        self._directory: Final = at.options.directory
        self._second_store: Final = self._directory / "keystore" / region
        self._connection: Final = connection
        self._vault: Final = vault
        self._operator: Final = load_identity(OPERATOR, str(trust.key(OPERATOR)), SYSTEM)
        self._core: Final = load_identity(core.name, str(trust.key(core.name)), SYSTEM)
        self._roster: Final = _roster_version(trust.roster.read_bytes())
        self._slots: Final = asyncio.Semaphore(AT_ONCE)

    async def tenants(self, numbers: Iterable[int], link: str) -> None:
        """Tenants with a root that does not open."""

        async def one(number: int) -> None:
            name = filler(number)
            record = statements.tenant(
                self._operator, name, link=link, regions=self._regions, region_quorum="all"
            )
            await self._registry(record, "tenant", name)
            keys = RootKeys(
                tenant=name, region=self._region, revision=1, current=1, versions=[_root(link)]
            )
            await self._keys(encode(self._core.sign(Kind.ROOT_KEYS, keys)), "root", name)

        await self._all(one, numbers)

    async def services(self, tenant: str, numbers: Iterable[int]) -> None:
        """Services of one tenant with keys that do not open."""

        async def one(number: int) -> None:
            name = f"s{number:05}"
            record = statements.service(self._operator, tenant, name)
            await self._registry(record, "service", tenant, name)
            blob = os.urandom(limits.WRAPPED_SIZE)
            version = WrappedService(version=1, l2_version=1, state="active", blob=blob)
            keys = ServiceKeys(
                tenant=tenant, region=self._region, service=name, revision=1, current=1,
                versions=[version],
            )  # fmt: skip
            signed = encode(self._core.sign(Kind.SERVICE_KEYS, keys))
            await self._keys(signed, "service", tenant, name)

        await self._all(one, numbers)

    async def links(self, names: Iterable[str]) -> None:
        """Links to softkeys of their own, which nobody tries first."""
        softkeys = Softkeys(self._directory)

        async def one(name: str) -> None:
            uri = softkeys.create(name, "softkey")
            record = statements.link(self._operator, name, uri=uri, model="byok")
            await self._registry(record, "link", name)

        await self._all(one, names)

    async def _registry(self, record: bytes, *key: str) -> None:
        """As a Core accepts it: its own word beside it, in the second store, then in the bucket."""
        word = Accepted(
            statement=statement_digest(read_signed(record)),
            region=self._region,
            roster=self._roster,
        )
        accepted = encode(self._core.sign(Kind.ACCEPTED, word))
        entry = encode(RegistryEntry(statement=record, accepted=accepted))
        await asyncio.to_thread(_write, self._second_store / (PREFIX + ".".join(key)), entry)
        async with self._slots:
            place = subjects.bucket_subject(subjects.REGISTRY_BUCKET, *key)
            await put(self._connection, place, entry)

    async def _keys(self, record: bytes, *key: str) -> None:
        await asyncio.to_thread(_write, self._second_store / ".".join(key), record)
        async with self._slots:
            await put(self._vault, subjects.bucket_subject(subjects.KEYS_BUCKET, *key), record)

    @staticmethod
    async def _all(one: Callable[[T], Awaitable[None]], todo: Iterable[T]) -> None:
        rest = iter(todo)

        async def worker() -> None:
            for item in rest:
                await one(item)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(worker())


@asynccontextmanager
async def filling(at: System, region: str) -> AsyncIterator[Filling]:
    """Connect as a Core of the region does."""
    connection = Connection(region_account(at, region), "bench-filling")
    vault = Connection(region_account(at, region, Account.VAULT), "bench-filling")
    try:
        await connection.start()
        await vault.start()
        yield Filling(at, region, connection, vault)
    finally:
        await vault.close()
        await connection.close()


def region_account(at: System, region: str, account: Account = Account.REGION) -> BusAddress:
    """An account of a region's broker; the usual one has its control stream and its registry."""
    return visitors_address(at.context, at.options.directory, region, account)


def _roster_version(signed: bytes) -> int:
    return decode(Roster, read_signed(signed).body).version


def _write(place: Path, record: bytes) -> None:
    place.mkdir(mode=0o700)
    (place / f"{1:020d}").write_bytes(record)


def _root(link: str) -> WrappedRoot:
    return WrappedRoot(
        version=1,
        seal_key_id=bytes(limits.ID_SIZE),
        link=link,
        link_revision=1,
        blob=os.urandom(100),
        mechanism="aes-gcm",
        key_version="0",
        principal="bench",
        canary=os.urandom(100),
        canary_digest=bytes(32),
    )
