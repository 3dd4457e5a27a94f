"""Clients that encrypt and decrypt, and operators that kill and lift, each a node of its own.

A client accepts an answer only within the lease that it carries and within D, both counted from the
sending of its request on its own clock, as the SDK does. Operators repeat what they said until it
is durable, and ask until it is complete.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kcm_killswitch.model.registry_objects import key_of
from kcm_schemas import data_subjects, subjects
from kcm_schemas.app import App
from kcm_schemas.codec import encode, pack
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import Lift
from kcm_schemas.names import key_target
from kcm_schemas.registry import Tenant
from kcm_schemas.signed import Kind
from kcm_trust.statements import hold as signed_hold

from tests.simulation.apps import VERBS, Caller, app_identity
from tests.simulation.clocks import SimClock
from tests.simulation.history import TenantFacts
from tests.simulation.instance import read
from tests.simulation.links import Links
from tests.simulation.plan import (
    APPS,
    OTHER,
    Kill,
    Regrant,
    Relink,
    application,
    instance,
    target,
)
from tests.simulation.registry import signed
from tests.simulation.sessions import Asker
from tests.simulation.trust import identity
from tests.simulation.vault import KEY_SIZE, SERVICE

if TYPE_CHECKING:
    from tests.simulation.world import World

ANSWER_S: Final = 5.0
"""D: the longest for which an answer may be accepted."""

ADMIN_S: Final = 4.0
"""Seconds that a Core gets to answer an operator."""

AGAIN: Final = 0.3
"""How often somebody who watches a kill places it once more, in place of a look."""

GIVE_UP_S: Final = 120.0
"""Seconds after which an operator asks no more whether a kill is complete."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a client keeps: an encrypted record, and what it must open to."""

    tenant: str
    region: str
    record: list[bytes]
    plaintext: bytes


class Person:
    """A node with a connection to every region's own account, and clocks."""

    def __init__(self, world: World, name: str) -> None:
        self.world: Final = world
        self.node: Final = world.loop.node(name, world.plan.rates.get(name, 1.0))
        self.clock: Final = SimClock(world.loop, self.node)
        self.to: Final = {
            region: world.network.connect(self.node, region, "region")
            for region in world.plan.regions
        }

    async def ask(self, region: str, subject: str, what: list[Any], timeout_s: float) -> list[Any]:
        """Ask; raises ``KcmError``."""
        deadline_ms = self.clock.unix_ms() + int(timeout_s * 1000)
        body = pack([*what, deadline_ms])
        return read(await self.to[region].request(subject, body, timeout_s))


class Client(Person):
    """The processes of all applications in one region, for every tenant."""

    def __init__(self, world: World, region: str) -> None:
        super().__init__(world, f"client-{region}")
        self.region: Final = region
        self._sides: Final = [
            world.network.connect(self.node, region, "region", side=side) for side in (0, 1)
        ]
        self._source: Final = random.Random(f"applications in {region} of {world.plan.seed}")
        self._askers: Final[dict[Caller, Asker]] = {}
        self.records: Final[list[Record]] = []
        self.served = 0
        self.refusals: dict[str, str] = {}
        """The last code of each tenant's refusals; gone when it is served."""

    async def work(self) -> None:
        """Ask for something every now and then, without waiting for the answers."""
        source, every = self.world.random, self.world.plan.every_s
        here = [one for one in self.world.plan.tenants if self.region in one.regions]
        while here:
            await asyncio.sleep(every * source.uniform(0.2, 1.8))
            task = asyncio.get_running_loop().create_task(self._once(source.choice(here)))
            task.add_done_callback(_look)

    @property
    def _waits_s(self) -> float:
        return ANSWER_S if self.world.plan.variant != "accept-late" else 10 * ANSWER_S

    async def encrypt(self, tenant: TenantFacts, app: str = "") -> bool:
        """Encrypt one record and keep it; whether that was served."""
        plaintext = self.world.random.randbytes(KEY_SIZE)
        done = await self._serve(tenant, "encrypt", plaintext, app)
        if done is not None:
            self.records.append(Record(tenant.name, self.region, done, plaintext))
        return done is not None

    async def decrypt(self, record: Record) -> bool:
        """Decrypt one record; whether that was served."""
        tenant = self.world.oracle.tenants[record.tenant]
        done = await self._serve(tenant, "decrypt", record.record)
        if done is not None and done != [record.plaintext]:
            self.world.oracle.never_healed(4, f"a record of {record.tenant} opens to another text")
        return done is not None

    def _asker(self, caller: Caller) -> Asker:
        if caller not in self._askers:
            number = self.world.apps.numbers[caller.app]
            self._askers[caller] = Asker(self, caller, app_identity(caller.app, number).sign_raw)
        return self._askers[caller]

    async def _once(self, tenant: TenantFacts) -> None:
        known = [record for record in self.records if record.tenant == tenant.name]
        if known and self.world.random.random() < 0.5:
            await self.decrypt(self.world.random.choice(known))
        else:
            await self.encrypt(tenant)

    async def _serve(self, tenant: TenantFacts, operation: str, payload: Any, app: str = "") -> Any:
        """Ask as an application, or as any one of them."""
        world, began, sent = self.world, self.world.loop.now, self.clock.elapsed()
        caller = world.apps.caller(app or self._source.choice(APPS))
        subject = data_subjects.gateway(self.region, operation, tenant.name, SERVICE)
        asker = None
        deadline_ms = self.clock.unix_ms() + int(ANSWER_S * 1000)
        try:
            if world.plan.asks and operation == "decrypt":
                asker = self._asker(caller)
                subject, asks = await asker.ask(tenant.name, payload[0])
                payload = [*payload, *asks]
            body = pack([caller.app, caller.public, payload, deadline_ms])
            bus = self._sides[world.random.random() < 0.4]
            lease_ms, done = read(await bus.request(subject, body, self._waits_s))
        except KcmError as error:
            self.refusals[tenant.name] = error.code.value
            if asker is not None and error.code is Code.UNKNOWN_ASK:
                asker.doubt()
            if not world.apps.refused(caller, tenant.name, self.region, error.code, operation):
                world.oracle.refused(tenant.name, self.region, error.code)
            return None
        age = self.clock.elapsed() - sent
        if age >= min(lease_ms / 1000, ANSWER_S) and world.plan.variant != "accept-late":
            world.coverage.saw("an answer too late to be accepted")
            self.refusals[tenant.name] = Code.DEADLINE_EXCEEDED.value
            return None
        self.refusals.pop(tenant.name, None)
        self.served += 1
        world.oracle.accepted(tenant.name, self.region, operation, began)
        world.apps.accepted(caller, tenant, self.region, operation, began)
        return done


class Operator(Person):
    """A person with the role to kill and to lift."""

    async def carry_out(self, kill: Kill) -> None:
        """Kill, see it complete, and lift when the plan says so."""
        world = self.world
        tenant = target(world.plan.tenants, kill)
        home = tenant.regions[int(kill.region_pick * len(tenant.regions))]
        hold_id, raw = signed_hold(
            identity(kill.operator),
            scope=kill.scope,
            target=self._target(kill, tenant, home),
            cause="operator",
            origin=home,
            issued_ms=self.clock.unix_ms(),
            reason="simulated",
            salt=world.random.randbytes(16),
        )
        world.oracle.issued(raw, f"killed by {kill.operator}")
        watch = asyncio.get_running_loop().create_task(self.watch(hold_id, raw, home))
        if kill.lift_after is not None:
            await asyncio.sleep(kill.lift_after)
            await self.lift(raw, home)
        await watch

    def _target(self, kill: Kill, tenant: TenantFacts, home: str) -> str:
        """What a kill is on: for a key, that of an application or of an instance now."""
        match kill.scope:
            case "tenant":
                return tenant.name
            case "link":
                return self._link(tenant, home)
            case "app":
                self.world.coverage.saw("a hold on a key of an application")
                return self.world.apps.caller(application(kill.pick)).target
            case "instance":
                self.world.coverage.saw("a hold on a key of an instance")
                name = instance(self.world.plan.members, home, kill.pick)
                return key_target(name, identity(name).public)

    async def lift(self, held: bytes, home: str) -> None:
        """Lift a hold, until every region has that durable."""
        lift = Lift(hold=held, issued_ms=self.clock.unix_ms(), reason="simulated")
        raw = encode(identity(self.node.name).sign(Kind.LIFT, lift))
        self.world.oracle.issued(raw, f"lifted by {self.node.name}")
        await self._until(raw, home, lambda said: bool(said[2]))

    async def relink(self, relink: Relink) -> None:
        """Move a tenant to its other link, until every region has accepted that."""
        tenant = self.world.plan.tenants[int(relink.pick * len(self.world.plan.tenants))]
        await self.move(tenant, OTHER[self._link(tenant, tenant.regions[0])])

    async def move(self, tenant: TenantFacts, link: str) -> None:
        """Sign a tenant's next record, and have it accepted in every region, or a higher one."""
        links = self.world.oracle.links
        record = self.record(tenant, link, links.revision(tenant.name) + 1)
        self.world.oracle.note(f"{tenant.name} moves to {link}")
        await self._put(record, tenant.regions, links)

    async def regrant(self, regrant: Regrant) -> None:
        """Change an application's entry: a grant for a tenant and a verb ends, or the key."""
        apps, app, plan = self.world.apps, application(regrant.pick), self.world.plan
        if regrant.what == "rotate":
            await self.put_app(apps.next(app, rotate=True))
            apps.numbers[app] += 1
            return
        tenant = plan.tenants[int(regrant.pick * len(plan.tenants))]
        verb = VERBS[int(regrant.pick * 104729) % len(VERBS)]
        await self.put_app(apps.next(app, lacks=(tenant.name, verb)))

    async def put_app(self, entry: App) -> None:
        """Sign an application's entry, and have it accepted in every region, or a higher one."""
        apps, plan = self.world.apps, self.world.plan
        apps.made(entry)
        self.world.coverage.saw("an application's entry that changes")
        self.world.oracle.note(f"{entry.app} gets another entry, of revision {entry.revision}")
        await self._put(entry, plan.regions, apps.entries)

    async def _put(self, entry: Tenant | App, regions: Sequence[str], known: Links) -> None:
        noun, name = key_of(entry)[:2]
        raw = signed(entry, self.node.name)
        for region in regions:
            while True:
                try:
                    await self.ask(region, subjects.admin(region, noun, "put"), [raw], ADMIN_S)
                except KcmError as error:
                    if error.code is Code.CONFLICT and known.beyond(name, region, entry.revision):
                        break
                else:
                    break
                await asyncio.sleep(self.world.random.uniform(0.1, 1.0))

    def record(self, tenant: TenantFacts, link: str, revision: int) -> Tenant:
        """A tenant's record."""
        return Tenant(
            tenant=tenant.name,
            revision=revision,
            link=link,
            regions=list(tenant.regions),
            region_quorum=tenant.policy,
        )

    def _link(self, tenant: TenantFacts, region: str) -> str:
        """The link that a tenant is on, as somebody would see it who asks."""
        return min(self.world.oracle.links.of(tenant.name, region) or (tenant.link,))

    async def watch(self, hold_id: bytes, raw: bytes, home: str) -> None:
        """Place a hold, and ask until it is complete; now and then place it once more.

        As ``kcm kill`` does: to look publishes nothing, and a receipt may have been lost.
        """
        await self._until(raw, home, _placed)
        until = self.world.loop.now + GIVE_UP_S
        while self.world.loop.now < until:
            asked_at = self.world.loop.now
            again = self.world.random.random() < AGAIN
            said = await self._once(home, "put" if again else "status", raw if again else hold_id)
            if said is not None and said[0] and not said[1]:
                self.world.oracle.complete(hold_id, asked_at, said[4])
                clocked = {"lease-ended", "leases-ended"} & set(said[3])
                way = "by the clock" if clocked else "by receipts"
                self.world.coverage.saw(f"a kill complete {way}")
            if said is not None and self._enough(hold_id, said):
                return
            await asyncio.sleep(self.world.random.uniform(0.2, 1.5))

    def _enough(self, hold_id: bytes, said: list[Any]) -> bool:
        """Whether a kill is complete or lifted; not by the word of who judges by an old roster."""
        return bool(said[0] or said[1]) and not self.world.oracle.outdated(hold_id, said[4])

    async def _until(self, raw: bytes, home: str, enough: Any) -> None:
        """Say it again, elsewhere too, until somebody says that it was enough."""
        region = home
        while True:
            said = await self._once(region, "put", raw)
            if said is not None and enough(said):
                return
            if said is None and enough is not _placed and self.node.name in self.world.rosters.gone:
                return  # nobody takes a lift of somebody retired
            await asyncio.sleep(self.world.random.uniform(0.1, 1.0))
            region = self.world.random.choice((home, *self.world.plan.regions))

    async def _once(self, region: str, verb: str, what: bytes) -> list[Any] | None:
        try:
            return await self.ask(region, subjects.admin(region, "hold", verb), [what], ADMIN_S)
        except KcmError:
            return None


def _placed(_said: list[Any]) -> bool:
    """Whatever a Core says of a hold, it has it."""
    return True


def _look(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.result()
