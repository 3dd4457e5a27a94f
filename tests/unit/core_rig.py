"""A Core without processes: its real parts over a broker, a directory and an L1 in memory."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any, Final

from kcm_bus.clock import SystemRandomness
from kcm_bus.membership import Membership
from kcm_bus.registry_feed import RegistryFeed
from kcm_control.holds import HoldRecord
from kcm_control.registry import Registry
from kcm_control.revocation import Revocations
from kcm_core.admin import Admin
from kcm_core.directory import Directory
from kcm_core.keystore import KeyStore
from kcm_core.making import Maker
from kcm_core.opening import Opener
from kcm_core.sessions import Sessions
from kcm_core.vault import SealKey, Vault
from kcm_core.wrapping import Wrapping
from kcm_crypto.hpke import SECRET_SIZE, HpkePrivate
from kcm_gateway.core_client import CoreClient
from kcm_schemas.codec import encode
from kcm_schemas.codes import KcmError
from kcm_schemas.control import Hold
from kcm_schemas.data import Failure
from kcm_schemas.registry import Link, Service, Tenant
from kcm_schemas.signed import Kind
from kcm_trust.verify import Verifier

from tests.fakes.bus import Bus, Clock
from tests.fakes.unsealer import FakeUnsealer
from tests.unit import trust_rig
from tests.vectors.families.messages import identity

URI: Final = "softkey:/keys/acme"
LINK: Final = Link(link="acme-root", revision=1, uri=URI, model="byok")
TENANT: Final = Tenant(
    tenant="acme", revision=1, link="acme-root", regions=["eu", "us"], fence="all"
)
SERVICE: Final = Service(tenant="acme", service="crm", revision=1)
BLOB: Final = 72
KEY: Final = 32

PRIVATE: Final = {
    region: HpkePrivate(memoryview(bytearray(bytes([number]) * SECRET_SIZE)))
    for number, region in enumerate(("eu", "us"), start=1)
}
ROSTER: Final = trust_rig.roster().model_copy(
    update={
        "regions": [
            region.model_copy(update={"hpke_public": PRIVATE[region.region].public_bytes})
            for region in trust_rig.roster().regions
        ]
    }
)
VERIFIER: Final = Verifier(ROSTER)
_boots: Final = itertools.count(1)


def membership(name: str) -> Membership:
    return Membership(
        identity(name), VERIFIER.instance(name), VERIFIER, next(_boots).to_bytes(16, "big")
    )


def signed(kind: Kind, message: Any, signer: str = "admin") -> bytes:
    return encode(identity(signer).sign(kind, message))


class World:
    """What Cores of a region share, and what an attacker has: broker, directory, L1, seal key."""

    def __init__(self, path: Path, region: str = "eu") -> None:
        self.region = region
        self.bus = Bus()
        self.directory = path / region
        self.directory.mkdir()
        self.seal_key = path / f"seal-{region}"
        self.seal_key.write_bytes(os.urandom(KEY))
        self.seal_key.chmod(0o600)
        self.unsealer = FakeUnsealer()
        self.clock = Clock(1_000_000.0)

    def core(self, name: str = "core-eu", **changes: Any) -> Core:
        return Core(self, name, **changes)


class Core:
    """One boot."""

    def __init__(self, world: World, name: str, *, seal_key: Path | None = None) -> None:
        self.world = world
        self.me = membership(name)
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.may_record = True
        self.registry = Registry()
        self.revocations = Revocations(self.registry)
        randomness = SystemRandomness()
        seal = SealKey(trust_rig.ID, str(seal_key or world.seal_key))
        self.vault = Vault(self.me.region, seal, randomness)
        self.store = KeyStore(world.bus, Directory(world.directory), self.me)  # type: ignore[arg-type]
        common: Any = {
            "membership": self.me,
            "revocations": self.revocations,
            "vault": self.vault,
            "emit": self._emit,
        }
        self.opener = Opener(
            **common, registry=self.registry, store=self.store, unsealer=world.unsealer,
            deadline_s=5.0,
        )  # fmt: skip
        self.maker = Maker(
            **common, store=self.store, opener=self.opener, unsealer=world.unsealer,
            seal_key_id=trust_rig.ID, randomness=randomness, deadline_s=5.0,
        )  # fmt: skip
        self.sessions = Sessions(
            self.me.region, trust_rig.ID, PRIVATE[self.me.region], self.me.verifier
        )
        self.wrapping = Wrapping(
            **common, opener=self.opener, sessions=self.sessions, clock=world.clock,
            randomness=randomness, lease_ms=10_000, may_record=lambda: self.may_record,
        )  # fmt: skip
        feed = RegistryFeed(
            world.bus, self.me.verifier, self.revocations, self.vault.purge, world.clock  # type: ignore[arg-type]
        )  # fmt: skip
        nobody: Any = None
        self.admin = Admin(
            **common, connection=world.bus, feed=feed, registry=self.registry, store=self.store,  # type: ignore[arg-type]
            maker=self.maker, kills=nobody, clock=world.clock,
        )  # fmt: skip

    def _emit(self, kind: str, **fields: Any) -> None:
        self.events.append((kind, fields))

    def learn(self, *records: Tenant | Link | Service) -> None:
        for record in records or (LINK, TENANT, SERVICE):
            for tenant in self.revocations.register(record):
                self.vault.purge(tenant)

    async def made(self) -> Core:
        """With the tenant's root and the service's key, closed."""
        self.learn()
        await self.maker.root(TENANT, LINK)
        await self.maker.service(SERVICE)
        self.vault.purge("acme")
        return self

    def kill(self, hold: Hold | None = None) -> None:
        """As the kill switch does: learn, then purge, with nothing in between."""
        one = hold or trust_rig.hold()
        for tenant in self.revocations.learn(HoldRecord(one, "security", b"raw")).purge:
            self.vault.purge(tenant)

    def lift(self, hold: Hold | None = None) -> None:
        one = hold or trust_rig.hold()
        self.revocations.learn(HoldRecord(one, "security", b"raw", lift=b"lift"))

    async def answer(self, subject: str, body: bytes, timeout_s: float = 1.0) -> bytes:
        """As the bus serves it."""
        try:
            return await self.wrapping.handle(subject, body)
        except KcmError as error:
            return encode(Failure(v=1, error=error.code, detail=error.detail))

    def client(self, name: str = "gw-eu", ask: Any = None) -> CoreClient:
        return CoreClient(
            ask or self.answer, membership(name), self.world.clock, SystemRandomness(), 2.0
        )
