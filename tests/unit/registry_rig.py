"""A region's registry in two stores, and Cores that do or do not remember it."""

import errno

from kcm_core.registry.stores import PREFIX
from kcm_runtime.nats.ports import Entry
from kcm_schemas import subjects
from kcm_schemas.admin.registry import AdoptOrder, RegistryView
from kcm_schemas.admin.requests import Empty
from kcm_schemas.codec import decode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import Accepted
from kcm_schemas.signed import Kind, read_signed
from kcm_trust.envelopes import statement_digest

from tests.unit.admin_requests import ask, put_all, request
from tests.unit.core_rig import TENANT, signed

BUCKET = f"$KV.{subjects.REGISTRY_BUCKET}."
TENANT_KEY = f"{BUCKET}tenant.acme"
NEWER = TENANT.model_copy(update={"revision": 2, "region_quorum": "local"})
FULL = OSError(errno.ENOSPC, "No space left on device")


async def kept(world, name="core-eu"):
    """A Core of a region that has a tenant."""
    core = world.core(name)
    assert await put_all(core) == [Code.OK] * 3
    return core


def read(core):
    """As the feed does, from the bucket's start."""
    for subject, (sequence, data) in list(core.world.bus.stream.stored.items()):
        if subject.startswith(BUCKET):
            core.feed.receive(Entry(sequence, subject, data))


async def fresh(world, name="core-eu-2"):
    """A Core whose disk is new."""
    core = world.core(name, remembers=False)
    read(core)
    await core.keeper.start()
    return core


def floors_of(world, name="core-eu-2"):
    return world.state / f"{name}-floors"


def emitted(core, kind):
    return [fields for one, fields in core.events if one == kind]


def served(core, tenant="acme"):
    """The code with which an operation would be refused."""
    try:
        core.admission.admit(tenant, core.world.clock.elapsed())
    except KcmError as error:
        return error.code, error.detail
    return Code.OK, ""


async def adopt(core, digest, signer="admin"):
    """The code and the payload of the answer to an operator."""
    raw = request(core, "registry", "adopt", AdoptOrder(digest=digest), signer=signer)
    return await ask(core, raw, "registry", "adopt")


async def shown(core):
    raw = request(core, "registry", "show", Empty())
    code, payload = await ask(core, raw, "registry", "show")
    assert code is Code.OK
    return decode(RegistryView, payload)


def stored(world):
    return world.bus.stream.stored[TENANT_KEY][1]


def lay(world, data, subject=TENANT_KEY):
    """Somebody with the broker's password puts this there."""
    world.bus.stream.sequence += 1
    world.bus.stream.stored[subject] = (world.bus.stream.sequence, data)


def lay_in_second_store(world, name, revision, data):
    place = world.directory / f"{PREFIX}{name}"
    place.mkdir(exist_ok=True)
    (place / f"{revision:020d}").write_bytes(data)


def word(statement, who, region="eu"):
    body = Accepted(statement=statement_digest(read_signed(statement)), region=region, roster=3)
    return signed(Kind.ACCEPTED, body, who)
