"""A region's audit stream, its Auditors' heads, and Cores that trim it."""

from __future__ import annotations

from kcm_core.trimming import TrimFiles, Trimmer
from kcm_core.trimming.policy import Policy
from kcm_runtime.audit.stream_chain import Place
from kcm_runtime.clock import SystemRandomness
from kcm_runtime.host import Host
from kcm_runtime.instance import InstanceContext
from kcm_runtime.roster.store import Rosters
from kcm_schemas import subjects
from kcm_schemas.auditor import StreamHead
from kcm_schemas.codec import encode
from kcm_schemas.roster import Instance, Role
from kcm_schemas.signed import Kind
from kcm_trust.verify import Verifier

from tests.fakes.audit_store import AuditBroker, FakeAuditStore
from tests.fakes.bus import Clock
from tests.fakes.stream_log import FakeLog, Stream
from tests.unit import trust_rig
from tests.vectors.families.messages import identity

DAY_S = 86_400.0
NOW_S = 100 * DAY_S
BODY = bytes(100)
KEEP = {"keep_ms": 7 * 86_400_000, "keep_full_ms": 86_400_000}


def verifier(*auditors):
    roster = trust_rig.roster()
    instances = [entry for entry in roster.instances if entry.role is not Role.AUDITOR]
    instances += [
        Instance(
            instance=name, role=Role.AUDITOR, region="eu", grants=[],
            public_key=identity(name).public,
        )
        for name in auditors
    ]  # fmt: skip
    return Verifier(roster.model_copy(update={"instances": instances}))


class World:
    """A region with a control stream, an audit stream and Auditors that read it."""

    def __init__(self, directory, auditors=("aud-1", "aud-2"), room=1 << 20):
        self.directory = directory
        self.control, self.audit = Stream(), AuditBroker(room=room)
        self.verifier = verifier(*auditors)
        self.clock = Clock(NOW_S)

    def fill(self, count, *, days=30.0):
        for _ in range(count):
            self.audit.store(BODY, time_ms=int((self.clock.now - days * DAY_S) * 1000))

    def digest(self, through):
        """What an honest reader of the whole stream has; the test stores before it trims."""
        place = Place()
        for number in range(1, through + 1):
            place = place.append(number, "kcm.v1.eu.audit.gw-eu", BODY)
        return place.digest

    def head(self, name, through, *, digest=None, signer=None, created=None):
        body = StreamHead(
            auditor=name, region="eu", through=through, time_ms=1,
            created=self.audit.created if created is None else created,
            digest=self.digest(through) if digest is None else digest,
        )  # fmt: skip
        raw = encode(identity(signer or name).sign(Kind.STREAM_HEAD, body))
        self.control.store(subjects.control_head("eu", name), raw)
        return raw

    @property
    def trims(self):
        return [e for e in self.control.history if e.subject == subjects.control_trim("eu")]


class OneCore:
    """A Core's share of the work, delivered and run by hand."""

    def __init__(self, world, name="core-eu", policy=None):
        self.world = world
        self.events = []
        self.log = FakeLog(world.control)
        self.store = FakeAuditStore(world.audit)
        self.state = TrimFiles(world.directory / name)
        entry = world.verifier.instance(name)
        me = InstanceContext(identity(name), entry, Rosters(world.verifier), bytes(16))
        self.trimmer = Trimmer(
            Host(me, world.clock, SystemRandomness(), self._emit),
            control=self.log, store=self.store, state=self.state,
            policy=policy or Policy(quorum=0, **KEEP),
        )  # fmt: skip

    def _emit(self, kind, **fields):
        self.events.append((str(kind), fields))

    async def round(self):
        """Look until there is nothing to begin anew; what was stored is delivered."""
        for _ in range(3):
            await self.trimmer.round()
            self.store.following.deliver()
            if self.trimmer.why != "the stream is being read":
                return

    def kinds(self):
        return [kind for kind, _ in self.events]


async def read(world, **settings):
    """A Core that has read what is stored."""
    core = OneCore(world, **settings)
    await core.round()
    core.events.clear()
    return core
