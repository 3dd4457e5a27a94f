"""A Core's kill switch over a stream and a bus that record what happened, in order."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from kcm_keymem.random import SystemKeyRandomness
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.model.timing import Timing
from kcm_killswitch.replica.hold_store import NullHoldStore
from kcm_killswitch.replica.killswitch import KillSwitch
from kcm_runtime.host import Host
from kcm_runtime.instance import InstanceContext
from kcm_runtime.nats.ports import Entry, StreamLeader
from kcm_runtime.roster.store import Rosters
from kcm_schemas import subjects
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import Tenant
from kcm_schemas.signed import Kind
from kcm_trust.verify import Verifier

from tests.fakes.bus import Clock, Message
from tests.unit.trust_rig import VERIFIER, hold
from tests.vectors.families.messages import identity

HOLD = hold()
HELD = encode(identity("security").sign(Kind.HOLD, HOLD))
PLACE = subjects.control_hold("eu", "tenant", HOLD.id)


class Counting(Verifier):
    """Says how often a hold was verified."""

    asked = 0

    def hold_or_lift(self, raw):
        self.asked += 1
        return super().hold_or_lift(raw)


class Log:
    """``kcm_runtime.nats.ports.StreamLog`` in memory; it delivers nothing."""

    def __init__(self):
        self.stored = {}
        self.reads = 0
        self.sequence = 0

    async def put(self, subject, body, *, expected=None, ttl=None):
        at = self.stored.get(subject)
        if expected is not None and expected != (at.sequence if at else 0):
            raise KcmError(Code.CONFLICT)
        self.sequence += 1
        self.stored[subject] = Entry(self.sequence, subject, body)
        return self.sequence

    async def move(self):
        pass

    async def last(self, subject):
        self.reads += 1
        return self.stored.get(subject)

    async def leading(self):
        return StreamLeader("one", len(self.stored))

    def follow(self, follower):
        return None


@dataclass
class Messages:
    """``kcm_runtime.nats.ports.PubSub`` that keeps what was sent and who listens."""

    sent: list = field(default_factory=list)
    heard: dict = field(default_factory=dict)

    async def subscribe(self, subject, callback, queue=""):
        self.heard[subject] = callback

    async def publish(self, subject, body, reply=""):
        self.sent.append((subject, body))

    async def move(self):
        pass

    async def flush(self):
        pass


def with_tenant():
    """What a replica knows of a region that has a tenant."""
    made = ReplicaState.empty("eu", Timing())
    made.registry.put(
        Tenant(tenant="acme", revision=1, link="l", regions=["eu"], region_quorum="local")
    )
    return made


def member(verifier=VERIFIER, name="core-eu"):
    return InstanceContext(identity(name), verifier.instance(name), Rosters(verifier), b"b" * 16)


def host(verifier, clock=None, emit=lambda kind, **fields: None):
    return Host(member(verifier), clock or Clock(), SystemKeyRandomness(), emit)


class Switch:
    """A Core's kill switch, with what happened in order."""

    def __init__(self, state, verifier):
        self.log, self.bus, self.events = Log(), Messages(), []
        self.clock = Clock()
        self.host = host(verifier, self.clock, lambda kind, **fields: self.events.append(kind))
        self.state = state
        self.made = KillSwitch(
            self.host,
            self.state,
            stream=self.log,
            hold_store=NullHoldStore(),
            control_bus=self.bus,
            purge=lambda tenant: self.events.append("purge") or 1,
        )

    def receipts(self):
        return [body for subject, body in self.bus.sent if ".receipt." in subject]

    async def hear(self, raw=HELD):
        await self.made.broadcasts.receive(Message(raw))

    def read(self, raw=HELD, at=1):
        self.made.reader.receive(Entry(at, PLACE, raw))

    async def settled(self):
        while self.made.unsent:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
