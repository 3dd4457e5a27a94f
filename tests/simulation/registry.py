"""A region's registry: its bucket, its second store, and what a Core's disk has of it.

The feed and the keeper are production's, and so is how they put and read. Below them is a stream
that can be set back, emptied and written to by anybody.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kcm_core.keys.file_store import Stored
from kcm_core.registry.stores import PREFIX
from kcm_killswitch.model.registry_objects import Key, RegistryObject, key_of
from kcm_killswitch.replica.registry_follower import RegistryFollower
from kcm_runtime.nats.ports import LogFollower
from kcm_runtime.nats.store_health import Stores
from kcm_schemas import subjects
from kcm_schemas.app import App
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import Accepted, Link, RegistryEntry, Service, Tenant
from kcm_schemas.signed import Kind
from kcm_trust.envelopes import statement_digest
from nats.js import errors as js_errors

from tests.simulation.following import SimFollowing
from tests.simulation.log import SimLog
from tests.simulation.loop import SimLoop
from tests.simulation.stream import ControlStream, Store
from tests.simulation.trust import identity

if TYPE_CHECKING:
    from tests.simulation.core import SimCore
    from tests.simulation.instance import Instance

Floor = tuple[int, bytes]

_KINDS: Final[dict[type[RegistryObject], Kind]] = {
    Tenant: Kind.TENANT,
    Link: Kind.LINK,
    Service: Kind.SERVICE,
    App: Kind.APP,
}


class SimDirectory:
    """The second store of a region, which all its Cores share."""

    def __init__(self) -> None:
        self._made: Final[dict[str, dict[int, bytes]]] = {}
        self._lost: Final[dict[str, dict[int, bytes]]] = {}

    def create(self, key: str, revision: int, data: bytes) -> None:
        """Make a revision, once; raises ``conflict``."""
        if revision in self._made.setdefault(key, {}):
            raise KcmError(Code.CONFLICT)
        self._made[key][revision] = data

    def latest(self, key: str) -> Stored | None:
        """The highest revision of a record."""
        made = self._made.get(key)
        return Stored(max(made), made[max(made)]) if made else None

    def heads(self, prefix: str) -> dict[str, int]:
        """The highest revision of every record."""
        return {key: max(made) for key, made in self._made.items() if made}

    def lose(self, key: str) -> None:
        """It was set back to before the highest revision of a record."""
        made = self._made[key]
        if len(made) > 1:
            newest = max(made)
            self._lost.setdefault(key, {})[newest] = made.pop(newest)

    def restore(self) -> None:
        """Everything that was lost comes back from a backup, beside what was made meanwhile."""
        for key, lost in self._lost.items():
            self._made[key] = lost | self._made[key]


@dataclass
class FloorsDisk:
    """What one Core's machine has of the registry: it outlives every incarnation."""

    known: dict[Key, Floor] = field(default_factory=dict)
    there: bool = True
    """Whether there is a file: a new disk has none."""
    used: bool = False
    """Whether a record was accepted, or is being accepted."""


class SimFloors:
    """One incarnation's view of that."""

    def __init__(self, disk: FloorsDisk) -> None:
        self._disk: Final = disk

    @property
    def fresh(self) -> bool:
        """Whether there is no file."""
        return not self._disk.there

    @property
    def unused(self) -> bool:
        """Whether nothing was there, and nothing was accepted since."""
        return self._disk.there and not self._disk.known and not self._disk.used

    def use(self) -> None:
        """A record is accepted now."""
        self._disk.used = True

    def forget(self) -> None:
        """Remove it."""
        self._disk.known, self._disk.there, self._disk.used = {}, False, False

    def begin(self, floors: Iterable[tuple[Key, Floor]]) -> None:
        """Make it."""
        self._disk.known, self._disk.there = dict(floors), True

    def items(self) -> list[tuple[Key, Floor]]:
        """Every key with its floor."""
        return list(self._disk.known.items())

    def raise_to(self, floors: Iterable[tuple[Key, Floor]]) -> None:
        """Believe nothing lower any more."""
        for key, floor in floors:
            self._disk.known[key] = max(floor, self._disk.known.get(key, (0, b"")))


class Bucket:
    """A region's bucket and second store, with what every tenant begins with."""

    def __init__(
        self,
        loop: SimLoop,
        region: str,
        objects: Iterable[RegistryObject],
        core: str,
        operator: str,
        store: Store | None = None,
    ) -> None:
        """``core`` has accepted what ``operator`` has signed."""
        self.region: Final = region
        self.stream: Final = ControlStream(loop, region, store)
        self.directory: Final = SimDirectory()
        for obj in objects:
            raw = entry(obj, operator, core, region)
            self.stream.append(place(key_of(obj)), raw)
            self.directory.create(PREFIX + ".".join(key_of(obj)), obj.revision, raw)

    def past(self, key: Key) -> list[bytes]:
        """Everything that was ever stored under a key, and not lost."""
        return [one.data for one in self.stream.past if one.subject == place(key) and one.data]


@dataclass(frozen=True, slots=True)
class _Message:
    seq: int
    subject: str
    data: bytes


@dataclass(frozen=True, slots=True)
class _State:
    messages: int
    last_seq: int


@dataclass(frozen=True, slots=True)
class _Information:
    state: _State


@dataclass(frozen=True, slots=True)
class _Acknowledged:
    seq: int


class SimBucket:
    """One instance's connection to the bucket, as ``kcm_runtime.nats.streams`` asks for it."""

    over = ""

    def __init__(self, stream: ControlStream, connection: Any) -> None:
        self._stream: Final = stream
        self._connection: Final = connection
        self._log: Final = SimLog(stream, connection)
        self.stores: Final = Stores()

    @property
    def connected(self) -> bool:
        """What the client library believes."""
        return bool(self._connection.connected)

    def jetstream(self) -> SimBucket:
        """The client library's view of it."""
        return self

    async def publish(
        self, subject: str, body: bytes, headers: dict[str, str] | None = None
    ) -> _Acknowledged:
        """Store a message."""
        expected = (headers or {}).get("Nats-Expected-Last-Subject-Sequence")
        number = None if expected is None else int(expected)
        return _Acknowledged(await self._log.put(subject, body, expected=number))

    async def get_last_msg(self, _: str, subject: str) -> _Message:
        """The last message of a subject."""
        found = await self._log.last(subject)
        if found is None:
            raise js_errors.NotFoundError(code=404, err_code=10037)
        return _Message(found.sequence, found.subject, found.data)

    async def stream_info(self, _: str) -> _Information:
        """How many messages it has."""
        await self._log.last("")
        return _Information(_State(len(self._stream.entries()), self._stream.sequence))


@dataclass(frozen=True)
class BucketReader:
    """Production's feed of one instance, and its simulated follower of the bucket."""

    feed: RegistryFollower
    following: SimFollowing


def bucket_reader(instance: Instance, bucket: Bucket) -> BucketReader:
    """Read a bucket as production does."""
    connection: Any = SimBucket(bucket.stream, instance.region_bus)
    made: list[SimFollowing] = []

    def follow(follower: LogFollower) -> SimFollowing:
        made.append(SimFollowing(bucket.stream, instance.region_bus, follower))
        return made[0]

    feed = RegistryFollower(
        connection,
        instance.me,
        instance.revocations,
        instance.purge,
        instance.freshness.registry,
        instance.clock,
        follow=follow,
    )
    return BucketReader(feed, made[0])


def floors_of(core: SimCore) -> Any:
    """What one Core's machine has of the registry."""
    return SimFloors(core.world.floors.setdefault(core.who.name, FloorsDisk()))


def bucket_of(core: SimCore, bucket: Bucket) -> Any:
    """One Core's connection to the bucket."""
    return SimBucket(bucket.stream, core.region_bus)


def place(key: Key) -> str:
    """Where a record lies in the bucket."""
    return subjects.bucket_subject(subjects.REGISTRY_BUCKET, *key)


def signed(obj: RegistryObject, operator: str) -> bytes:
    """A record as an operator signs it."""
    return encode(identity(operator).sign(_KINDS[type(obj)], obj))


def entry(obj: RegistryObject, operator: str, core: str, region: str) -> bytes:
    """A record as a bucket has it: with a Core's word."""
    statement = identity(operator).sign(_KINDS[type(obj)], obj)
    word = Accepted(statement=statement_digest(statement), region=region, roster=1)
    accepted = identity(core).sign(Kind.ACCEPTED, word)
    return encode(RegistryEntry(statement=encode(statement), accepted=encode(accepted)))
