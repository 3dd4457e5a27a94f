"""The world of one run: regions, brokers, keys, instances, and the oracle that watches them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from kcm_runtime.nats.ports import Entry
from kcm_schemas import subjects
from kcm_schemas.admin.kill_status import HoldStatus
from kcm_schemas.codes import KcmError
from kcm_schemas.registry import Link, Service, Tenant
from kcm_schemas.roster import Role, Roster

from tests.simulation.apps import Apps
from tests.simulation.asks import Asks
from tests.simulation.core import SimCore
from tests.simulation.coverage import Coverage
from tests.simulation.disk import SimDisk
from tests.simulation.gateway import SimGateway
from tests.simulation.history import HoldFacts
from tests.simulation.instance import Instance
from tests.simulation.l1 import CustomerKeys
from tests.simulation.loop import SimLoop
from tests.simulation.losing import Losing
from tests.simulation.messages import Packet, SimConnection
from tests.simulation.network import Network
from tests.simulation.oracle import Oracle
from tests.simulation.plan import LINKS, OPERATORS, OTHER, Plan
from tests.simulation.registry import Bucket, FloorsDisk
from tests.simulation.results import SimResults
from tests.simulation.rostering import RosterRequests
from tests.simulation.stream import ControlStream
from tests.simulation.trust import SimVerifier, roster
from tests.simulation.vault import SERVICE, SimStore
from tests.simulation.words import Words

PROBE_S: Final = 0.5
"""Seconds between two looks at who would serve."""


class World:
    """Everything of one run."""

    def __init__(self, plan: Plan) -> None:
        self.plan: Final = plan
        self.loop: Final = SimLoop(plan.seed)
        self.random: Final = random.Random(self.loop.random.random())
        self.network: Final = Network(self.loop, plan.regions, plan.weather)
        self.streams: Final = {
            region: ControlStream(self.loop, region, plan.store) for region in plan.regions
        }
        uris = {link: LINKS[link][0] for link in plan.links}
        self.keys: Final = _keys(self.loop, plan.regions, uris)
        self.stores: Final = {
            region: SimStore(region, plan.tenants, OTHER if plan.registry else None)
            for region in plan.regions
        }
        first = _roster(plan)
        self.verifier: Final = SimVerifier(first)
        self.rosters: Final = RosterRequests(self, first)
        self.oracle: Final = Oracle(
            self.loop, self.verifier, plan.tenants, plan.bounds, self.keys, uris,
            apart=plan.registry,
        )  # fmt: skip
        self.apps: Final = Apps(self.loop, self.oracle, plan.tenants, plan.regions)
        self.asks: Final = Asks(self.apps)
        records = [*_records(plan), *self.apps.first]
        self.records: Final = [] if plan.registry else records
        self.buckets: Final = {
            region: self._bucket(region) for region in (plan.regions if plan.registry else ())
        }
        """Every region's registry, where it can change; else everybody has it from the start."""
        self.results: Final = {region: SimResults() for region in plan.regions}
        """What every region keeps of finished kills."""
        self.words: Final = Words(self)
        self.set_back: Final[set[str]] = set()
        """Tenants whose record was set back in the bucket and in the second store."""
        self.floors: Final[dict[str, FloorsDisk]] = {}
        """What every Core's machine keeps of the registry, by its name."""
        self.coverage: Final[Coverage] = self.oracle.coverage
        self.members: Final = {one.name: one for one in plan.members}
        self.running: Final[dict[str, Instance]] = {}
        self.disks: Final[dict[str, SimDisk]] = {}
        """What every Core's machine keeps of holds, by its name."""
        self.losing: Final = Losing(self)
        self.armed: Final[Counter[str]] = Counter()
        """Faults that wait for their moment: a broadcast, a purge, an answer."""
        self.gone_s = 0.0
        """Seconds for which the next Core is gone that has just accepted a record; 0: none is."""
        self.muted = False
        """Whether broadcasts of holds never leave."""
        self.unheard: set[str] = set()
        """Regions whose Cores answer nobody elsewhere."""
        self.answers_s = 0.0
        """Seconds by which every answer of a Core is late."""
        self.stuck: Final[dict[str, list[Instance]]] = {}
        """Regions in which whoever starts cannot read the stream, and who did."""
        self.on_revived: Callable[[HoldFacts], None] = lambda _: None
        """Told of every hold whose lift does not count any more."""
        self.stops_again: Final[Counter[str]] = Counter()
        self._replied: dict[str, float] = {}
        self._listen()

    def _listen(self) -> None:
        """Learn what the streams store and lose, and what the network sends and delivers."""
        for stream in self.streams.values():
            stream.on_stored.append(self._stored)
            stream.on_lost.append(self._lost)
        self.network.on_send = self._sent
        self.network.on_arrival = self._arrived

    def _bucket(self, region: str) -> Bucket:
        plan = self.plan
        records = [*_records(plan, region), *self.apps.first]
        return Bucket(self.loop, region, records, f"core-{region}-0", OPERATORS[0], plan.store)

    def _lost(self, region: str, _: int) -> None:
        for known in (self.oracle.links, self.apps.entries):
            self.oracle.doubted(region, known)
        self.words.went_back(region)
        self.losing.lost(region)

    def start(self, name: str) -> None:
        """Start an incarnation of an instance, unless one runs."""
        if name not in self.running:
            who = self.members[name]
            made = SimCore(self, who) if who.role == "core" else SimGateway(self, who)
            self.running[name] = made
            if who.region in self.stuck:
                self.stuck[who.region].append(made)
                made.control_bus.leg.state = "cut"
                made.following.stuck = True
            self.loop.spawn(made.node, self._run(made))
            self.oracle.note(f"{name} starts")

    async def _run(self, made: Instance) -> None:
        """Start an instance; if its broker goes away meanwhile, it ends and is started again."""
        try:
            await made.start()
        except KcmError as error:
            self.oracle.note(f"{made.who.name} cannot start: {error.code.value}")
            self._end_soon(made)

    def crash(self, name: str) -> None:
        """End an incarnation at once."""
        gone = self.running.pop(name, None)
        if gone is not None:
            self.loop.kill(gone.node)
            self.network.drop(gone.node)
            self.streams[gone.who.region].forget(gone.node)
            if gone.who.region in self.buckets:
                self.buckets[gone.who.region].stream.forget(gone.node)
            self.oracle.note(f"{name} crashes")
            if name in self.disks:
                self.disks[name].lose_power()
            self.losing.lost(gone.who.region)

    def cores(self, region: str) -> list[SimCore]:
        """The Cores of a region that run."""
        return [
            one
            for _, one in sorted(self.running.items())
            if isinstance(one, SimCore) and one.who.region == region
        ]

    def purged(self, instance: Instance) -> None:
        """An instance has just purged."""
        if self.armed["crash-after-purge"]:
            self.armed["crash-after-purge"] -= 1
            self.coverage.saw("a crash right after the purge")
            self._end_soon(instance)

    def accepted(self, instance: Instance) -> None:
        """A Core has just said that it accepted a record."""
        if self.gone_s:
            name, again_s, self.gone_s = instance.who.name, self.gone_s, 0.0
            self.coverage.saw("a Core that is gone when it has accepted a record")
            self.loop.call_soon(self.crash, name, context=self.world_context)
            self.loop.pause(instance.node)
            self.loop.after(again_s, self.start, name)

    def replied(self, tenant: str) -> None:
        """A Gateway lets an answer go."""
        self._replied[tenant] = self.loop.now

    def probe(self) -> None:
        """See, now and every ``PROBE_S``, that nobody would serve later than the bound.

        And that no Core takes a hold for durable that its region's majority never had.
        """
        for name, one in sorted(self.running.items()):
            for record in one.revocations.holds if one.who.role == "core" else ():
                if one.switch.durable_at(record.hold.id):
                    self.oracle.believes_durable(
                        name, one.who.region, record.hold.id, lifted=record.lifted
                    )
            for tenant in self.plan.tenants:
                if one.who.region in tenant.regions and one.serves(tenant.name):
                    by = one.registry.links_of(tenant.name)
                    self.oracle.serves(
                        name, tenant, one.who.region, by, has_keys=one.has_keys(tenant.name)
                    )
                    self.apps.would(one, tenant)
        self.loop.after(PROBE_S, self.probe)

    def said_complete(self, status: HoldStatus, core: str, began: float, roster: int) -> None:
        """A Core says that a kill is complete: nobody may be able to serve whom it reaches."""
        hold_id = status.hold_id
        if self.oracle.outdated(hold_id, roster):
            return
        self.losing.said_complete(status)
        hold = self.oracle.holds[hold_id]
        admission = [
            f"{name} serves {tenant.name}"
            for name, one in sorted(self.running.items())
            for tenant in self.plan.tenants
            if one.who.region in tenant.regions
            and self.oracle.reach.kills(hold, tenant, one.who.region, began)
            and one.serves(tenant.name)
        ]
        admission += self.apps.serving(hold, sorted(self.running.items()))
        self.oracle.said_complete(hold_id, core, admission)

    def _end_soon(self, instance: Instance) -> None:
        """Kill it before anything else of it runs, and start it again some time later."""
        name = instance.who.name
        self.loop.call_soon(self.crash, name, context=self.world_context)
        self.loop.pause(instance.node)
        self.loop.after(self.random.uniform(0.5, 8), self.start, name)

    @property
    def world_context(self) -> Any:
        """For callbacks that belong to no node."""
        return self.loop.world.context

    def _stored(self, region: str, entry: Entry) -> None:
        if subjects.control_noun(entry.subject) == "roster" and entry.data == self.rosters.raw:
            self.oracle.judgement.roster_stored(region)
        if not entry.data or subjects.control_noun(entry.subject) != "hold":
            return
        self.oracle.stored(region, entry.data)
        starting = [i for i in self.running.values() if i.who.region == region and not i.ready]
        self.coverage.saw("a kill during catch-up", len(starting))
        facts = self.oracle.issued(entry.data, "stored")
        if facts is not None:
            for tenant in self.plan.tenants:
                at = self._replied.get(tenant.name, -9.0)
                near = self.loop.now - at < self.network.weather.delay_s * 2
                reached = self.oracle.reach.reaches(facts, tenant, region)
                if near and reached and facts.active(self.loop.now):
                    self.coverage.saw("a reply in flight when a kill lands")

    def _sent(self, sender: SimConnection, packet: Packet) -> bool:
        """Look at what is sent; ``False`` keeps it from leaving (its sender is about to die)."""
        if packet.subject.startswith(f"{subjects.CTL}.hold."):
            facts = self.oracle.issued(packet.data, "broadcast")
            name = sender.node.name
            if facts is not None and self.armed["kill-issuer"] and name in self.running:
                region = self.members[name].region
                if region not in facts.durable:
                    self.armed["kill-issuer"] -= 1
                    self.coverage.saw("the issuer dies before the acknowledgement")
                    self._end_soon(self.running[name])
            return not self.muted
        if any(packet.subject.startswith(f"{subjects.CTL}.pull.{one}.") for one in self.unheard):
            return False
        if self.armed["hold-reply"] and self._is_reply(sender, packet):
            self.armed["hold-reply"] -= 1
            self.coverage.saw("a message held between check and send")
            self.loop.after(self.random.uniform(1, 30), self.network.send_now, sender, packet)
            return False
        if (
            self.answers_s
            and sender.node.name.startswith("core")
            and self._is_reply(sender, packet)
        ):
            self.loop.after(self.answers_s, self.network.send_now, sender, packet)
            return False
        return True

    def _is_reply(self, sender: SimConnection, packet: Packet) -> bool:
        return packet.subject.startswith("_INBOX.") and sender.node.name in self.running

    def _arrived(self, packet: Packet) -> None:
        if packet.subject.startswith(f"{subjects.CTL}.hold."):
            facts = self.oracle.issued(packet.data, "broadcast")
            stale = facts is not None and not facts.active(self.loop.now)
            if stale and self.verifier.hold_or_lift(packet.data).raw == packet.data:
                is_hold = not hasattr(self.verifier.hold_or_lift(packet.data), "lift")
                self.coverage.saw("a stale message after its lift", int(is_hold))


def _keys(loop: SimLoop, regions: Sequence[str], uris: Mapping[str, str]) -> CustomerKeys:
    keys = CustomerKeys(loop, regions)
    for uri in sorted(set(uris.values())):
        keys.create(uri)
    return keys


def _roster(plan: Plan) -> Roster:
    members = [(one.name, Role(one.role), one.region) for one in plan.members]
    return roster(members, OPERATORS, plan.regions)


def _records(plan: Plan, region: str = "") -> list[Any]:
    """The registry's records as every instance has them from its start; those of a region, or all.

    A region's registry has its own tenants alone.
    """
    made: list[Any] = [
        Link(link=name, revision=1, uri=LINKS[name][0], model=LINKS[name][1]) for name in plan.links
    ]
    for one in plan.tenants:
        if region and region not in one.regions:
            continue
        made.append(
            Tenant(
                tenant=one.name,
                revision=1,
                link=one.link,
                regions=list(one.regions),
                region_quorum=one.policy,
            )
        )
        made.append(Service(tenant=one.name, service=SERVICE, revision=1))
    return made
