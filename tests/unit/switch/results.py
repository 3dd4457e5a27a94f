"""Kills that are finished, and the bucket in which their results are: for the tests of results."""

from kcm_runtime.nats.jetstream_errors import FULL
from kcm_schemas import subjects
from kcm_schemas.codec import decode, encode
from kcm_schemas.kill_result import Result
from kcm_schemas.signed import Kind, read_signed
from nats.js import errors as js_errors

from tests.fakes.virtual import let_pass
from tests.unit.switch.rig import watched
from tests.unit.switch.statements import LINK, held, hold, tenant
from tests.vectors.families.messages import identity


async def started(system, name, *, regions=False, of=("eu",), **options):
    """A Core that runs, with a tenant of these regions."""
    core = system.core(name, **options)
    core.learn(LINK, tenant(regions=list(of)))
    await core.start(regions=regions, watch=False)
    return core


async def finished(system, core):
    """A kill that a Core has found complete, and how it stands."""
    await watched(system)
    one = hold()
    status = await core.kills.place(held(one), core.clock.unix_ms() + 20_000)
    end = core.clock.elapsed() + 60
    while not status.complete:
        assert core.clock.elapsed() < end, status
        await let_pass(0.1)
        status = await core.kills.status(one.id)
    return one, status


def place_of(one):
    return subjects.bucket_subject(subjects.RESULTS_BUCKET, "result", one.id.hex())


class Bucket:
    """A region's bucket of results, as whoever has the broker sees it."""

    def __init__(self, system, one, region="eu"):
        self.stream = system.buses[region].stream
        self.place = place_of(one)

    @property
    def raw(self):
        return self.stream.stored[self.place][1]

    @property
    def content(self):
        return decode(Result, read_signed(self.raw).body)

    @property
    def signers(self):
        return [each.signer for each in read_signed(self.raw).signatures]

    def put(self, raw):
        """Whatever the broker likes, in the place of what is there."""
        self.stream.sequence += 1
        self.stream.stored[self.place] = (self.stream.sequence, raw)

    def empty(self):
        self.stream.stored.pop(self.place, None)


def by(content, *names):
    """A result that these signed."""
    statement = identity(names[0]).sign(Kind.RESULT, content)
    for name in names[1:]:
        statement = identity(name).countersign(statement)
    return encode(statement)


class Failing:
    """A bucket that fails as long as it is told to."""

    def __init__(self, system, region="eu", *, times=10**9, error=None):
        self.times = times
        self.error = error or js_errors.APIError(code=503)
        self.writes_only = True
        system.buses[region].stream.before = self

    async def __call__(self, operation, subject):
        if "result" not in subject or (operation == "last" and self.writes_only):
            return
        if self.times > 0:
            self.times -= 1
            raise self.error


NO_ROOM = js_errors.APIError(code=503, err_code=min(FULL))
