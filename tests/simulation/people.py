"""Clients that encrypt and decrypt, and operators that kill and lift, each a node of its own.

A client accepts an answer only within the lease that it carries and within D, both counted from the
sending of its request on its own clock, as the SDK does. Operators repeat what they said until it
is durable, and ask until it is complete.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kcm_schemas import data_subjects, subjects
from kcm_schemas.codec import encode, pack
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.control import Lift
from kcm_schemas.registry import Tenant
from kcm_schemas.signed import Kind
from kcm_trust.statements import hold as signed_hold

from tests.simulation.clocks import SimClock
from tests.simulation.history import TenantFacts
from tests.simulation.instance import read
from tests.simulation.plan import OTHER, Kill, Relink, target
from tests.simulation.registry import signed
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
    """An application in one region, for every tenant."""

    def __init__(self, world: World, region: str) -> None:
        super().__init__(world, f"client-{region}")
        self.region: Final = region
        self._sides: Final = [
            world.network.connect(self.node, region, "region", side=side) for side in (0, 1)
        ]
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

    async def encrypt(self, tenant: TenantFacts) -> bool:
        """Encrypt one record and keep it; whether that was served."""
        plaintext = self.world.random.randbytes(KEY_SIZE)
        done = await self._serve(tenant, "encrypt", plaintext)
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

    async def _once(self, tenant: TenantFacts) -> None:
        known = [record for record in self.records if record.tenant == tenant.name]
        if known and self.world.random.random() < 0.5:
            await self.decrypt(self.world.random.choice(known))
        else:
            await self.encrypt(tenant)

    async def _serve(self, tenant: TenantFacts, operation: str, payload: Any) -> Any:
        world, began, sent = self.world, self.world.loop.now, self.clock.elapsed()
        subject = data_subjects.gateway(self.region, operation, tenant.name, SERVICE)
        deadline_ms = self.clock.unix_ms() + int(ANSWER_S * 1000)
        try:
            body = pack([deadline_ms, payload])
            bus = self._sides[world.random.random() < 0.4]
            lease_ms, done = read(await bus.request(subject, body, self._waits_s))
        except KcmError as error:
            self.refusals[tenant.name] = error.code.value
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
            target=self._link(tenant, home) if kill.scope == "link" else tenant.name,
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
        record = self.record(tenant, link, self.world.oracle.links.revision(tenant.name) + 1)
        raw = signed(record, self.node.name)
        for region in tenant.regions:
            self.world.oracle.note(f"{tenant.name} moves to {link} in {region}")
            while True:
                try:
                    await self.ask(region, subjects.admin(region, "tenant", "put"), [raw], ADMIN_S)
                except KcmError as error:
                    if error.code is Code.CONFLICT and self.world.oracle.links.beyond(
                        tenant.name, region, record.revision
                    ):
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
