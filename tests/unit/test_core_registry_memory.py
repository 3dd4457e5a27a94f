"""A Core without memory of its region's registry: it serves nothing until somebody knows better."""

import asyncio
import errno
import shutil

import pytest
from kcm_core.providers.state import L1State
from kcm_core.registry.floors import Floors
from kcm_core.registry.stores import PREFIX
from kcm_killswitch.model.control_lease import EXPIRED, FOREVER
from kcm_killswitch.model.registry_lease import NO_MEMORY, RegistryLease
from kcm_runtime.nats.ports import Entry, NobodyListens
from kcm_schemas import subjects
from kcm_schemas.admin.registry import AdoptOrder, RegistryView
from kcm_schemas.admin.requests import Empty
from kcm_schemas.admin.roster import SignedQuery
from kcm_schemas.codec import decode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import RegistryAnswer, RegistryQuestion
from kcm_schemas.signed import Kind

from tests.unit.admin_requests import ask, put, put_all, request
from tests.unit.core_rig import LINK, SERVICE, TENANT, URI, VERIFIER, World, signed

BUCKET = f"$KV.{subjects.REGISTRY_BUCKET}."
TENANT_KEY = f"{BUCKET}tenant.acme"
NEWER = TENANT.model_copy(update={"revision": 2, "region_quorum": "local"})
FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.fixture(autouse=True)
def _asked_again_at_once(monkeypatch):
    monkeypatch.setattr("kcm_core.registry.recovery.AGAIN_S", 0.0)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - of things that tell nobody
            await asyncio.sleep(0.005)


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


def _raise(error):
    async def fail(*_, **__):
        raise error

    return fail


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
    raw = request(core.world, "registry", "adopt", AdoptOrder(digest=digest), signer=signer)
    return await ask(core, raw, "registry", "adopt")


async def shown(core):
    raw = request(core.world, "registry", "show", Empty())
    code, payload = await ask(core, raw, "registry", "show")
    assert code is Code.OK
    return decode(RegistryView, payload)


def test_a_boot_without_memory_believes_nothing_until_it_remembers():
    lease, told = RegistryLease(), []
    lease.listen(lambda: told.append(1))
    lease.without_memory()
    assert lease.until(0.0) == EXPIRED
    assert lease.until(0.0, [1, 2]) == EXPIRED
    assert not lease.heard("core-2", [b"a"], [b"a"], 10.0, 0.0)
    assert lease.until(0.0) == EXPIRED
    lease.remembered()
    assert told
    assert lease.until(0.0) == FOREVER


async def test_an_empty_registry_is_a_new_regions(world):
    core = await fresh(world, "core-eu")
    await core.joining.start()
    assert core.memory.has
    assert not Floors(floors_of(world, "core-eu")).items()
    assert len(emitted(core, "registry.begun")) == 1
    assert await put_all(core) == [Code.OK] * 3
    assert served(core) == (Code.OK, "")
    again = world.core("core-eu", remembers=False)
    assert again.memory.has
    core.keeper.close()


@pytest.mark.parametrize("where", ["bucket", "deleted", "second store"])
async def test_what_nobody_can_believe_is_no_new_region(world, where):
    """By the next roster it may be believed."""
    if where == "second store":
        (world.directory / f"{PREFIX}tenant.acme").mkdir()
        (world.directory / f"{PREFIX}tenant.acme" / f"{1:020d}").write_bytes(b"junk")
    else:
        data = b"junk" if where == "bucket" else b""
        world.bus.stream.stored[TENANT_KEY] = (1, data)
    core = await fresh(world)
    await core.joining.start()
    assert not core.memory.has
    world.bus.stream.stored.clear()  # what is emptied later is no new region, either
    for place in world.directory.iterdir():
        shutil.rmtree(place)
    await core.joining.attempt()
    assert not floors_of(world).exists()
    core.joining.close()
    core.keeper.close()


async def test_an_empty_registry_is_no_new_region_where_a_core_remembers_records(world):
    one = await kept(world)
    await one.joining.start()
    world.bus.stream.stored.clear()
    for place in world.directory.iterdir():
        shutil.rmtree(place)
    core = await fresh(world)
    await core.joining.start()
    assert not core.memory.has
    for subscription in list(one.region_bus.subscriptions):
        one.region_bus.subscriptions.remove(subscription)  # it is gone, with what it knew
    await core.joining.attempt()
    assert not core.memory.has
    core.joining.close()
    core.keeper.close()


async def test_a_full_disk_in_a_new_region_is_said_and_tried_again(world, monkeypatch):
    core = await fresh(world, "core-eu")
    with monkeypatch.context() as patch:
        patch.setattr("kcm_core.registry.memory.RegistryMemory.begin", _raise(FULL))
        await core.joining.start()
    assert "make room in its state_dir" in core.joining.waits
    await until(lambda: core.memory.has)
    core.keeper.close()


async def test_a_core_that_finds_records_serves_nothing_and_a_restart_is_no_memory(world, caplog):
    await kept(world)
    for _ in range(2):
        core = await fresh(world)
        assert core.registry.tenant("acme") == TENANT
        for tenant in ("acme", "of which the stores know nothing any more"):
            assert served(core, tenant) == (Code.UNAVAILABLE, NO_MEMORY)
        assert core.freshness.registry.until(core.world.clock.elapsed()) == EXPIRED
        assert not floors_of(world).exists()
        await core.joining.start()
        (event,) = emitted(core, "registry.forgotten")
        assert (event["code"], event["count"]) == (Code.UNAVAILABLE, 3)
        assert "kcm registry adopt" in caplog.text
        core.joining.close()
        core.keeper.close()


async def test_a_core_without_memory_accepts_nothing_and_changes_nothing(world):
    one = await kept(world)
    del world.bus.stream.stored[TENANT_KEY]
    (world.directory / f"{PREFIX}service.acme.crm" / f"{1:020d}").unlink()
    core = await fresh(world)
    before = dict(world.bus.stream.stored), sorted(world.directory.rglob("*"))
    assert await put(core, LINK) is Code.UNAVAILABLE
    assert await put(core, NEWER) is Code.UNAVAILABLE
    assert await put(core, SERVICE) is Code.UNAVAILABLE
    with pytest.raises(KcmError) as caught:
        await core.keeper.accept(signed(Kind.TENANT, NEWER), NEWER)
    assert caught.value.detail == NO_MEMORY
    query = SignedQuery(name="admin", after="")
    raw = request(world, "roster", "signed", query)
    assert (await ask(core, raw, "roster", "signed"))[0] is Code.UNAVAILABLE
    core.keeper.compare()
    await core.keeper.round()
    await until(lambda: core.keeper.idle)
    assert core.registry.digest == one.registry.digest  # of both stores it knows everything
    assert (dict(world.bus.stream.stored), sorted(world.directory.rglob("*"))) == before
    core.keeper.close()


async def test_a_core_without_memory_uses_no_key_in_the_regions_name(world, monkeypatch):
    monkeypatch.setattr("kcm_core.root_keys.monitor.TICK_S", 0.001)
    await kept(world)
    core = await fresh(world)
    world.unsealer.calls.clear()
    core.holds.place(LINK.link, L1State.DISABLED)  # a held key is probed until it is allowed again

    def probed():
        world.clock.now += 1.0
        return ("probe", URI) in world.unsealer.calls

    core.watch.start()
    for _ in range(20):
        await asyncio.sleep(0.005)
        assert not probed()
    core.freshness.registry.remembered()
    await until(probed)
    core.watch.close()
    core.keeper.close()


async def test_who_knows_the_same_as_a_core_with_memory_serves_without_hands(world):
    one = await kept(world)
    await one.joining.start()
    core = await fresh(world)
    await core.joining.start()
    assert core.memory.has
    assert served(core) == (Code.OK, "")
    assert Floors(floors_of(world)).items()
    assert not emitted(core, "registry.forgotten")
    (event,) = emitted(core, "registry.joined")
    assert event["detail"] == f"core-eu: {one.registry.digest.hex()}"
    core.keeper.close()
    again = world.core("core-eu-2", remembers=False)
    assert again.memory.has
    assert not emitted(one, "registry.joined")


async def test_who_differs_reads_again_until_both_know_the_same(world):
    one = await kept(world)
    old = world.bus.stream.stored[TENANT_KEY]
    assert await put(one, NEWER) is Code.OK
    await one.joining.start()
    newest = world.directory / f"{PREFIX}tenant.acme" / f"{2:020d}"
    good, record = world.bus.stream.stored[TENANT_KEY], newest.read_bytes()
    newest.unlink()
    world.bus.stream.stored[TENANT_KEY] = old  # both stores were set back
    core = await fresh(world)
    await core.joining.start()
    assert served(core)[0] is Code.UNAVAILABLE
    assert (await shown(core)).waits.startswith("core-eu has memory of another registry")
    code, _ = await adopt(core, core.registry.digest)
    assert code is Code.CONFLICT  # a Core that remembers goes before an operator
    assert not floors_of(world).exists()
    newest.write_bytes(record)  # as the one that remembers puts it back
    world.bus.stream.stored[TENANT_KEY] = good
    await until(lambda: core.memory.has)
    assert core.registry.tenant("acme") == NEWER
    assert served(core) == (Code.OK, "")
    core.joining.close()
    core.keeper.close()


async def higher(world):
    """A Core that remembers a higher revision than both stores have, and answers."""
    one = await kept(world)
    one.registry.floor(("tenant", "acme"), 7, b"a" * 32)
    await one.joining.start()
    return one


def lost(core, monkeypatch, when):
    """The asker's connection drops at the question, or between it and the next one."""
    request = core.region_bus.request
    asked = []

    async def flapping(*arguments):
        asked.append(1)
        if when == "both" or (when == "second" and len(asked) > 1):
            raise KcmError(Code.UNAVAILABLE, "the broker cannot be reached")
        if when == "between":
            core.region_bus.times_connected += 1
            raise NobodyListens
        return await request(*arguments)

    monkeypatch.setattr(core.region_bus, "request", flapping)


@pytest.mark.parametrize("when", ["both", "between"])
async def test_a_question_that_never_left_does_not_mean_that_nobody_has_memory(
    world, monkeypatch, when
):
    await higher(world)
    core = await fresh(world)
    with monkeypatch.context() as patch:
        lost(core, patch, when)
        assert (await adopt(core, core.memory.digest))[0] is Code.UNAVAILABLE
    assert not core.memory.has
    assert (await adopt(core, core.memory.digest))[0] is Code.CONFLICT  # as it was all the time
    assert served(core)[0] is Code.UNAVAILABLE
    core.keeper.close()


@pytest.mark.parametrize("when", ["both", "between", "second"])
async def test_a_region_does_not_begin_over_a_question_that_never_left(world, monkeypatch, when):
    one = world.core()
    one.registry.floor(("tenant", "acme"), 7, b"a" * 32)
    if when != "second":
        await one.joining.start()
    core = await fresh(world)
    lost(core, monkeypatch, when)
    await core.joining.start()
    assert not core.memory.has
    assert not emitted(core, "registry.begun")
    assert "try again" in (await shown(core)).waits
    core.joining.close()
    core.keeper.close()


def hide(world):
    """Machines and bucket are new, and the second store is not mounted; returns where it is."""
    for subject in [one for one in world.bus.stream.stored if one.startswith(BUCKET)]:
        del world.bus.stream.stored[subject]
    world.bus.stream.sequence = 0
    hidden = world.directory.with_name("hidden")
    world.directory.rename(hidden)
    world.directory.mkdir()
    return hidden


def mount(world, hidden):
    shutil.rmtree(world.directory)
    hidden.rename(world.directory)


async def begun(world):
    core = await fresh(world)
    await core.joining.start()
    assert core.memory.has
    assert emitted(core, "registry.begun")
    return core


async def is_dark(world, core, caplog):
    await until(lambda: not core.memory.has and not core.region_bus.subscriptions)
    assert served(core) == (Code.UNAVAILABLE, NO_MEMORY)
    assert not floors_of(world).exists()
    assert "absent at the start" in caplog.text
    assert emitted(core, "registry.forgotten")
    assert await put(core, LINK) is Code.UNAVAILABLE


async def test_a_region_that_began_before_its_second_store_was_there_goes_dark(world, caplog):
    (await kept(world)).keeper.close()
    hidden = hide(world)
    core = await begun(world)
    mount(world, hidden)
    core.keeper.compare()
    await is_dark(world, core, caplog)
    await until(lambda: core.registry.tenant("acme") is not None)
    assert served(core) == (Code.UNAVAILABLE, NO_MEMORY)
    assert not [
        one for one in world.bus.stream.stored if one.startswith(BUCKET)
    ]  # and nothing of it is given to the others
    await until(lambda: core.joining.waits.startswith("no Core of the region"))
    assert (await adopt(core, core.memory.digest))[0] is Code.OK
    assert served(core) == (Code.OK, "")
    core.joining.close()
    core.keeper.close()


async def test_it_goes_dark_at_its_next_start_too_and_before_its_first_record(world, caplog):
    (await kept(world)).keeper.close()
    hidden = hide(world)
    core = await begun(world)
    core.keeper.close()
    core.joining.close()
    core = await fresh(world)
    await core.joining.start()
    assert core.memory.has
    mount(world, hidden)
    assert await put(core, NEWER.model_copy(update={"tenant": "bank"})) is not Code.OK
    core.keeper.compare()
    await is_dark(world, core, caplog)
    core.joining.close()
    core.keeper.close()


async def test_what_a_region_accepts_itself_is_no_reason_to_go_dark(world):
    core = await begun(world)
    assert await put_all(core) == [Code.OK] * 3
    del world.bus.stream.stored[TENANT_KEY]
    await core.keeper.reconcile()
    assert core.memory.has
    core.keeper.close()
    again = await fresh(world)  # killed after it wrote to the second store, and before all else
    assert again.memory.has
    again.keeper.close()


async def test_a_bucket_that_ever_had_a_message_is_no_new_regions(world):
    world.bus.stream.sequence = 7
    core = await fresh(world, "core-eu")
    await core.joining.start()
    assert not core.memory.has
    core.joining.close()
    core.keeper.close()


@pytest.mark.parametrize("late", ["the asker", "the one that answers"])
async def test_records_that_are_accepted_meanwhile_keep_nobody_from_joining(world, late):
    one = await kept(world)
    core = await fresh(world)
    before = one.registry.digest
    assert await put(one, NEWER) is Code.OK
    after = one.registry.digest
    bus = world.wire.join("somebody")

    async def reply(message):
        if late == "the asker":
            word = answer_of(after)
            asyncio.get_running_loop().call_later(0.02, read, core)
        else:
            word = answer_of(before)
            read(core)
        await bus.publish(message.reply, word(VERIFIER.registry_question(message.data)))

    await bus.subscribe(subjects.registry_question("eu"), reply)
    await core.joining.ask()
    assert core.memory.has
    assert core.memory.digest == after
    await until(lambda: dict(Floors(floors_of(world)).items())["tenant", "acme"][0] == 2)
    core.keeper.close()


async def test_another_roster_in_between_is_no_agreement(world, monkeypatch):
    await kept(world)
    core = await fresh(world)
    bus = world.wire.join("somebody")

    async def reply(message):
        question = VERIFIER.registry_question(message.data)
        monkeypatch.setattr(type(core.me.rosters), "version", 99)
        await bus.publish(message.reply, answer_of(core.memory.digest)(question))

    await bus.subscribe(subjects.registry_question("eu"), reply)
    with pytest.raises(KcmError, match="another registry"):
        await core.joining.ask()
    core.keeper.close()


async def test_a_core_that_remembers_what_was_lost_agrees_with_nobody_who_does_not(world):
    """Both stores were set back, and the Core that knew better has been restarted."""
    one = await kept(world)
    old = world.bus.stream.stored[TENANT_KEY]
    assert await put(one, NEWER) is Code.OK
    (world.directory / f"{PREFIX}tenant.acme" / f"{2:020d}").unlink()
    (world.directory / f"{PREFIX}tenant.acme" / f"{1:020d}").unlink()
    world.bus.stream.stored[TENANT_KEY] = old
    one = world.core()
    read(one)
    await one.keeper.reconcile()
    assert one.registry.tenant("acme") is None
    del world.bus.stream.stored[TENANT_KEY]
    core = await fresh(world)
    assert core.registry.digest == one.registry.digest  # neither store has it at all
    assert core.memory.digest != one.memory.digest
    core.keeper.close()


def answer_of(digest, who="core-eu", *, region="eu", nonce=None):
    def answer(message):
        word = RegistryAnswer(region=region, nonce=nonce or message.nonce, digest=digest)
        return signed(Kind.REGISTRY_ANSWER, word, who)

    return answer


@pytest.mark.parametrize(
    "changed",
    [
        {"nonce": b"o" * 16},  # the answer to an earlier question, once more
        {"who": "core-eu-2"},  # the asker's own name
        {"who": "gw-eu"},
        {"who": "core-us", "region": "us"},
        {"who": "core-us"},
    ],
)
async def test_an_answer_of_before_or_of_somebody_else_is_not_believed(world, changed):
    await kept(world)
    core = await fresh(world)
    bus = world.wire.join("somebody")

    async def reply(message):
        question = VERIFIER.registry_question(message.data)
        make = answer_of(core.memory.digest, **changed)
        await bus.publish(message.reply, make(question))

    await bus.subscribe(subjects.registry_question("eu"), reply)
    with pytest.raises(KcmError, match="not believed"):
        await core.joining.ask()
    assert not core.memory.has
    assert emitted(core, "trust.refused")
    core.keeper.close()


async def test_only_a_question_of_an_own_core_is_answered_and_only_into_an_inbox(world):
    one = await kept(world)
    await one.joining.start()
    bus = world.wire.join("somebody")

    async def asked(signer, region="eu", reply="_INBOX.1"):
        """The number of answers."""
        sent = len(world.wire.sent)
        body = signed(
            Kind.REGISTRY_QUESTION, RegistryQuestion(region=region, nonce=b"n" * 16), signer
        )
        await bus.publish(subjects.registry_question("eu"), body, reply)
        for _ in range(10):  # turns of the loop: more than an answer takes
            await asyncio.sleep(0)
        return len(world.wire.sent) - sent - 1

    assert await asked("core-eu-2") == 1
    answer, by = VERIFIER.registry_answer(world.wire.sent[-1].data)
    assert (answer.nonce, answer.digest, by) == (b"n" * 16, one.registry.digest, "core-eu")
    assert await asked("gw-eu") == 0
    assert await asked("core-us") == 0
    assert await asked("core-us", "us") == 0
    assert await asked("core-eu-2", reply="kcm.v1.eu.control.hold.x") == 0
    for _ in range(200):  # and whoever repeats one costs this Core a bounded part of its time
        await asked("core-eu-2")
    assert await asked("core-eu-2") == 0


async def test_an_operator_adopts_what_they_saw_and_nothing_else(world):
    await kept(world)
    core = await fresh(world)
    await core.joining.start()
    seen = await shown(core)
    assert (seen.core, seen.memory) == ("core-eu-2", False)
    assert (seen.tenants, seen.links, seen.services, seen.highest) == (1, 1, 1, 1)
    assert seen.waits.startswith("no Core of the region")
    assert (await adopt(core, seen.digest, "security"))[0] is Code.FORBIDDEN
    raw = request(world, "registry", "adopt", AdoptOrder(digest=bytes(32)))
    reply, _ = VERIFIER.admin_reply(
        await core.admin.handle(subjects.admin_at("eu", "registry", "adopt", "core-eu-2"), raw)
    )
    assert reply.code is Code.CONFLICT
    assert seen.digest.hex() in reply.detail
    assert served(core)[0] is Code.UNAVAILABLE
    code, payload = await adopt(core, seen.digest)
    assert (code, decode(RegistryView, payload).memory) == (Code.OK, True)
    assert served(core) == (Code.OK, "")
    (event,) = emitted(core, "registry.adopted")
    assert (event["actor"], event["count"]) == ("admin", 3)
    assert event["detail"] == seen.digest.hex()
    await until(lambda: core.region_bus.subscriptions)  # and now it answers others
    core.joining.close()
    core.keeper.close()


async def test_a_core_with_memory_has_nothing_to_adopt(world):
    core = await kept(world)
    code, payload = await adopt(core, bytes(32))
    view = decode(RegistryView, payload)
    assert (code, view.memory, view.waits) == (Code.OK, True, "")
    assert not emitted(core, "registry.adopted")


@pytest.mark.parametrize("call", ["write", "link", "fsync"])
async def test_a_full_disk_while_adopting_changes_nothing_and_is_said(world, monkeypatch, call):
    await kept(world)
    core = await fresh(world)

    def full(*_, **__):
        raise FULL

    with monkeypatch.context() as patch:
        if call == "fsync":
            patch.setattr("os.fsync", full)
        elif call == "link":
            patch.setattr("os.link", full)
        else:
            patch.setattr("kcm_core.registry.floors.place", full)
        raw = request(world, "registry", "adopt", AdoptOrder(digest=core.memory.digest))
        place = subjects.admin("eu", "registry", "adopt")
        reply, _ = VERIFIER.admin_reply(await core.admin.handle(place, raw))
    assert reply.code is Code.UNAVAILABLE
    assert "No space left on device; make room in its state_dir" in reply.detail
    assert served(core)[0] is Code.UNAVAILABLE
    assert not floors_of(world).exists()
    assert not world.core("core-eu-2", remembers=False).memory.has
    assert (await adopt(core, core.memory.digest))[0] is Code.OK
    assert served(core) == (Code.OK, "")
    core.keeper.close()


async def test_what_another_core_accepted_is_remembered_too(world):
    one = await kept(world)
    two = world.core("core-eu-2")
    read(two)
    await two.keeper.start()
    assert await put(one, NEWER) is Code.OK
    read(two)

    def written():
        return ("tenant", "acme") in dict(Floors(floors_of(world)).items())

    await until(
        lambda: written() and dict(Floors(floors_of(world)).items())["tenant", "acme"][0] == 2
    )
    two.keeper.close()


async def test_what_could_not_be_written_down_is_tried_again(world, monkeypatch):
    monkeypatch.setattr("kcm_core.registry.memory.RETRY_S", 0.0)
    core = await fresh(world, "core-eu")
    await core.joining.start()

    def full(_, floors):
        if floors:
            raise FULL

    with monkeypatch.context() as patch:
        patch.setattr(Floors, "raise_to", full)
        assert await put(core, LINK) is Code.UNAVAILABLE  # stored, and the same again goes on
    await until(lambda: dict(Floors(floors_of(world, "core-eu")).items()))
    assert await put(core, LINK) is Code.OK
    core.keeper.close()


def test_a_file_of_floors_that_vanished_is_written_anew_as_a_whole(tmp_path):
    path = tmp_path / "state" / "floors"
    floors = Floors(path)
    floors.begin([(("tenant", "a"), (1, b"a" * 32))])
    for harm in (path.unlink, lambda: path.parent.rename(tmp_path / "gone"), path.touch):
        harm()
        floors.raise_to([(("tenant", f"b{len(floors.items())}"), (1, b"b" * 32))])
        assert dict(Floors(path).items()) == dict(floors.items())
    path.write_bytes(b"")
    floors.raise_to([(("link", "l"), (1, b"c" * 32))])
    assert len(Floors(path).items()) == len(floors.items()) == 5


async def test_two_ways_to_a_memory_at_once_are_one(world):
    await kept(world)
    core = await fresh(world)
    digest = core.memory.digest
    done = await asyncio.gather(*(adopt(core, digest) for _ in range(3)))
    assert {code for code, _ in done} == {Code.OK}
    assert len(emitted(core, "registry.adopted")) == 1
    core.keeper.close()
