"""A Core that empties its audit stream: on whose word, in which order, and what may fail."""

from __future__ import annotations

from hashlib import sha256

import pytest
from kcm_core.trimming import TrimFiles, Trimmer
from kcm_core.trimming.policy import Level, Policy
from kcm_runtime.audit.stream_chain import MARK_EVERY, Marks, Place, link
from kcm_runtime.clock import SystemRandomness
from kcm_runtime.config import ConfigError
from kcm_runtime.host import Host
from kcm_runtime.instance import InstanceContext
from kcm_runtime.nats.streams import StoreFull
from kcm_runtime.roster.store import Rosters
from kcm_schemas import subjects
from kcm_schemas.audit import EventType
from kcm_schemas.auditor import StreamHead, Trim
from kcm_schemas.codec import encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.labels import AUDIT_STREAM, ctx
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


class Crash(Exception):
    """The process ended here."""


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
        self.memory = TrimFiles(world.directory / name)
        entry = world.verifier.instance(name)
        me = InstanceContext(identity(name), entry, Rosters(world.verifier), bytes(16))
        self.trimmer = Trimmer(
            Host(me, world.clock, SystemRandomness(), self._emit),
            control=self.log, store=self.store, memory=self.memory,
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


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


async def read(world, **settings):
    """A Core that has read what is stored."""
    core = OneCore(world, **settings)
    await core.round()
    core.events.clear()
    return core


async def test_what_all_have_and_is_old_goes_behind_a_signed_trim(world):
    world.fill(200)
    core = await read(world)
    heads = [world.head("aud-1", 192), world.head("aud-2", 128)]
    await core.round()
    assert world.audit.first == 129
    (entry,) = world.trims
    trim = world.verifier.trim(entry.data).trim
    assert (trim.through, trim.digest, trim.heads) == (128, world.digest(128), heads)
    assert core.kinds() == [EventType.AUDIT_TRIMMED]
    # The chain goes on from there, for whoever begins now as for whoever read it all.
    world.fill(100)
    fresh = await read(world, name="core-eu-2")
    await core.round()
    for name in ("aud-1", "aud-2"):
        world.head(name, 256)
    await fresh.round()
    assert world.audit.first == 257
    assert world.verifier.trim(world.trims[-1].data).trim.digest == world.digest(256)


async def test_nothing_goes_on_the_word_of_too_few(world):
    world.fill(200)
    world.head("aud-1", 192)
    core = await read(world)
    await core.round()
    assert (world.audit.first, world.trims) == (1, [])
    alone = await read(world, name="core-eu-2", policy=Policy(quorum=1, **KEEP))
    await alone.round()
    assert world.audit.first == 193


async def test_an_auditor_that_lies_is_named_and_holds_everything_up(world):
    world.fill(200)
    core = await read(world)
    world.head("aud-1", 192)
    world.head("aud-2", 192, digest=b"x" * 32)
    await core.round()
    await core.round()
    assert world.audit.first == 1
    assert core.kinds() == [EventType.AUDIT_DISPUTED]
    assert core.events[0][1]["actor"] == "aud-2"
    # Signing what the stream has not is no better.
    world.head("aud-2", 256, digest=b"x" * 32)
    await core.round()
    assert core.kinds() == [EventType.AUDIT_DISPUTED] * 2
    assert "more than the stream has" in core.events[1][1]["detail"]
    # And it is no floor: the truth counts again.
    world.head("aud-2", 192)
    await core.round()
    assert world.audit.first == 193


async def test_a_head_that_went_back_is_refused_also_after_a_restart(world):
    world.fill(200, days=1)
    world.head("aud-1", 192)
    world.head("aud-2", 192)
    core = await read(world)
    await core.round()
    assert world.audit.first == 1
    world.clock.now += 30 * DAY_S
    world.head("aud-2", 64)
    again = OneCore(world)
    await again.round()
    await again.round()
    assert world.audit.first == 1
    (told,) = (fields for kind, fields in again.events if kind == EventType.AUDIT_DISPUTED)
    assert (told["actor"], told["count"]) == ("aud-2", 64)
    assert "rolled back" in told["detail"]
    world.head("aud-2", 192)
    await again.round()
    assert world.audit.first == 193


async def test_a_head_under_another_name_or_by_another_hand_counts_for_nothing(world):
    world.fill(200)
    world.head("aud-1", 192)
    world.head("aud-2", 192, signer="aud-1")
    core = OneCore(world)
    for _ in range(5):
        await core.round()
    assert world.audit.first == 1
    assert core.kinds().count(EventType.TRUST_REFUSED) == 1, "a head that lies there is no flood"
    world.control.store(subjects.control_head("eu", "aud-2"), world.head("aud-1", 192))
    await core.round()
    assert world.audit.first == 1


@pytest.mark.parametrize("who", ["the same Core", "another one", "one without memory"])
async def test_a_crash_between_trim_and_purge_is_completed_by_whoever_comes(world, who):
    world.fill(200)
    core = await read(world)
    other = await read(world, name="core-eu-2")
    for name in ("aud-1", "aud-2"):
        world.head(name, 192)

    def crash():
        raise Crash

    core.store.before_purge = crash
    with pytest.raises(Crash):
        await core.round()
    assert (world.audit.first, len(world.trims)) == (1, 1)
    next_one = {
        "the same Core": core,
        "another one": other,
        "one without memory": OneCore(world, name="core-eu-2"),
    }[who]
    core.store.before_purge = lambda: None
    await next_one.round()
    await next_one.round()
    assert (world.audit.first, len(world.trims)) == (193, 1)
    assert EventType.AUDIT_TRIMMED in next_one.kinds()


async def test_an_acknowledgement_that_was_lost_is_a_trim_that_is_completed(world):
    world.fill(200)
    core = await read(world)
    for name in ("aud-1", "aud-2"):
        world.head(name, 192)
    core.log.acks_to_lose = 1
    with pytest.raises(KcmError):
        await core.round()
    assert world.audit.first == 1
    await core.round()
    assert (world.audit.first, len(world.trims)) == (193, 1)


async def test_two_cores_at_once_make_one_trim(world):
    world.fill(200)
    one = await read(world)
    two = await read(world, name="core-eu-2")
    for name in ("aud-1", "aud-2"):
        world.head(name, 192)

    async def meanwhile(operation, subject):
        """The other one decides between this one's look and its write."""
        if operation == "put" and not world.trims:
            await two.round()

    one.log.before = meanwhile
    await one.round()
    assert one.trimmer.why == "another Core trims"
    assert (world.audit.first, len(world.trims), world.audit.purges) == (193, 1, [192])
    await one.round()
    assert len(world.trims) == 1


@pytest.mark.parametrize("forged", ["digest", "heads", "signer", "region", "stream"])
async def test_a_trim_that_is_not_one_is_not_carried_out(world, forged):
    world.fill(200)
    core = await read(world)
    heads = [world.head("aud-1", 192), world.head("aud-2", 64)]
    if forged != "heads":
        heads[1] = world.head("aud-2", 192)
        world.head("aud-2", 64)
    body = Trim(
        region="us" if forged == "region" else "eu",
        created=world.audit.created + (forged == "stream"),
        through=192, issued_ms=1, heads=heads,
        digest=b"x" * 32 if forged == "digest" else world.digest(192),
    )  # fmt: skip
    signer = {"signer": "gw-eu", "region": "core-us"}.get(forged, "core-eu-2")
    raw = encode(identity(signer).sign(Kind.TRIM, body))
    world.control.store(subjects.control_trim("eu"), raw)
    await core.round()
    assert 192 not in world.audit.purges


async def test_what_vanished_without_a_trim_is_never_trimmed_over(world):
    world.fill(200)
    world.audit.drop(70)
    core = await read(world)
    assert "vanished" in core.trimmer.why
    for name in ("aud-1", "aud-2"):
        world.head(name, 192)
    await core.round()
    assert (world.audit.first, world.trims) == (71, [])


async def test_a_core_that_was_behind_goes_on_from_the_others_trim(world):
    world.fill(70)
    slow = await read(world)
    world.fill(130)
    quick = await read(world, name="core-eu-2")
    for name in ("aud-1", "aud-2"):
        world.head(name, 192)
    await quick.round()
    assert world.audit.first == 193
    slow.store.following.deliver()
    world.fill(100)
    await slow.round()
    for name in ("aud-1", "aud-2"):
        world.head(name, 256)
    await slow.round()
    assert world.audit.first == 257


async def test_a_stream_made_anew_has_floors_of_its_own(world):
    world.fill(200)
    world.head("aud-1", 192)
    world.head("aud-2", 64)
    core = await read(world)
    await core.round()
    world.audit.created += 1
    world.audit.entries, world.audit.last = [], 0
    world.fill(100)
    core.store.following.again()
    core.store.following.deliver()
    for name in ("aud-1", "aud-2"):
        world.head(name, 64)
    await core.round()
    await core.round()
    assert world.audit.first == 65


async def test_heads_that_cannot_be_kept_are_not_acted_on_and_tried_again(world):
    world.fill(200)
    core = await read(world)
    for name in ("aud-1", "aud-2"):
        world.head(name, 192)
    place = world.directory / "core-eu"
    place.rmdir() if place.is_dir() else None
    place.write_text("a file where the directory has to be")
    with pytest.raises(OSError, match=r"."):
        await core.round()
    assert (world.audit.first, world.trims) == (1, [])
    place.unlink()
    await core.round()
    assert world.audit.first == 193


async def test_what_was_read_is_remembered(world):
    world.fill(200)
    core = await read(world)
    await core.trimmer.close()
    again = OneCore(world)
    for name in ("aud-1", "aud-2"):
        world.head(name, 192)
    # Nothing was delivered to this incarnation: it knows from its disk.
    await again.trimmer.round()
    assert world.audit.first == 193
    (world.directory / "core-eu" / "audit-reading.json").write_text("{}")
    assert TrimFiles(world.directory / "core-eu").reading() is None
    (world.directory / "core-eu" / "audit-heads.json").write_text("{}")
    with pytest.raises(ConfigError, match="audit-heads"):
        OneCore(world)


async def test_filling_is_told_once_and_full_is_emptied_by_the_shorter_age(tmp_path):
    world = World(tmp_path, room=200 * len(BODY))
    world.fill(139, days=2)
    core = await read(world)
    world.fill(1, days=2)
    await core.round()
    await core.round()
    assert core.kinds() == [EventType.AUDIT_FILLING]
    assert core.events[0][1]["count"] == 70
    world.fill(60, days=2)
    with pytest.raises(StoreFull):
        world.audit.store(BODY)
    await core.round()
    assert core.kinds() == [EventType.AUDIT_FILLING] * 2
    assert (core.trimmer.level, world.audit.first) == (Level.NEARLY_FULL, 1)
    for name in ("aud-1", "aud-2"):
        world.head(name, 192)
    await core.round()
    assert world.audit.first == 193
    await core.round()
    assert core.trimmer.level is Level.ROOMY
    assert world.audit.store(BODY) == 201


def test_marks_stay_few_and_the_newest_ones_dense():
    marks = Marks(limit=64)
    for number in range(1, 100_000):
        marks.note(Place(number, bytes(32)))
    places = [place.sequence for place in marks.places]
    assert len(places) <= 64
    last = 100_000 // MARK_EVERY * MARK_EVERY
    assert places[-16:] == list(range(last - 15 * MARK_EVERY, last + 1, MARK_EVERY))
    assert places == sorted(places)
    marks.drop(last)
    assert [place.sequence for place in marks.places] == [last]


def test_a_step_of_the_chain_is_the_one_that_is_documented():
    for sequence, subject, body in ((1, "a", b""), (1 << 62, "kcm.v1.eu.audit.ü", b"x" * 70_000)):
        expected = ctx(AUDIT_STREAM, b"p" * 32, sequence, subject, sha256(body).digest())
        assert link(b"p" * 32, sequence, subject, body) == sha256(expected).digest()


async def test_without_the_broker_nothing_happens(world):
    world.fill(200)
    core = await read(world)
    core.store.connected = False
    with pytest.raises(KcmError) as caught:
        await core.round()
    assert caught.value.code is Code.UNAVAILABLE
