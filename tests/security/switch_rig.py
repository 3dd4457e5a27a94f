"""An incarnation's kill switch over a stream in memory that does what a test says."""

import asyncio

from kcm_keymem.random import SystemKeyRandomness
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.model.timing import Timing
from kcm_killswitch.replica.hold_store import NullHoldStore
from kcm_killswitch.replica.killswitch import KillSwitch
from kcm_runtime.host import Host
from kcm_runtime.instance import InstanceContext
from kcm_runtime.nats.ports import Entry
from kcm_runtime.nats.streams import ControlLog
from kcm_runtime.roster.store import Rosters
from kcm_schemas import subjects
from kcm_schemas.codec import encode
from kcm_schemas.registry import Tenant
from kcm_schemas.signed import Kind

from tests.fakes.bus import Bus, Clock
from tests.unit.trust_rig import VERIFIER
from tests.vectors.families.messages import identity


class Rig:
    """An incarnation's kill switch, with what it purged and published."""

    def __init__(self, name="core-eu", purge=None):
        self.purged = []
        self.clock = Clock()
        self.region, self.control = Bus(), Bus()
        self.state = ReplicaState.empty("eu", Timing())
        self.registry, self.revocations = self.state.registry, self.state.revocations
        self.events = []
        self.me = InstanceContext(
            identity(name), VERIFIER.instance(name), Rosters(VERIFIER), b"member-s" + b"m" * 8
        )
        self.host = Host(self.me, self.clock, SystemKeyRandomness(), self.emit, lambda: 0.5)
        self.switch = KillSwitch(
            self.host,
            self.state,
            stream=ControlLog(self.region, "eu", self.clock),
            hold_store=NullHoldStore(),
            control_bus=self.control,
            purge=purge or self._purge,
        )

    def emit(self, kind, **fields):
        self.events.append((kind, fields))

    def _purge(self, tenant):
        self.purged.append(tenant)
        return 1

    def receipts(self):
        return [
            VERIFIER.receipt(body) for subject, body in self.control.sent if "receipt" in subject
        ]

    def stored(self, one):
        subject = subjects.control_hold("eu", one.scope, one.id)
        return self.region.stream.stored.get(subject, (0, b""))

    def deliver(self, subject, data, sequence=None):
        self.region.stream.sequence += 1
        at = sequence or self.region.stream.sequence
        self.region.stream.stored[subject] = (at, data)
        self.switch.reader.receive(Entry(at, subject, data))


async def settle():
    for _ in range(50):
        await asyncio.sleep(0)


def signed(one, signer="security"):
    return encode(identity(signer).sign(Kind.HOLD, one))


def acme(revision=1, **changes):
    fields = {"link": "acme-root", "regions": ["eu", "us"], "region_quorum": "all"} | changes
    return Tenant(tenant="acme", revision=revision, **fields)
