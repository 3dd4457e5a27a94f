"""A Core without a baseline asks the others: which answer counts, and when there is none."""

import asyncio

import pytest
from kcm_core.registry.floors import Floors
from kcm_core.registry.stores import PREFIX
from kcm_runtime.nats.ports import NobodyListens
from kcm_schemas import subjects
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.registry import RegistryAnswer, RegistryQuestion
from kcm_schemas.signed import Kind

from tests.audit_rig import until
from tests.unit.admin_requests import put
from tests.unit.core_rig import VERIFIER, signed
from tests.unit.registry_rig import (
    NEWER,
    TENANT_KEY,
    adopt,
    emitted,
    floors_of,
    fresh,
    kept,
    read,
    served,
    shown,
)

pytestmark = pytest.mark.usefixtures("recovery_at_once")


async def test_who_knows_the_same_as_a_core_with_a_baseline_serves_without_hands(world):
    one = await kept(world)
    await one.joining.start()
    core = await fresh(world)
    await core.joining.start()
    assert core.baseline.present
    assert served(core) == (Code.OK, "")
    assert Floors(floors_of(world)).items()
    assert not emitted(core, "registry.forgotten")
    (event,) = emitted(core, "registry.joined")
    assert event["detail"] == f"core-eu: {one.registry.digest.hex()}"
    core.keeper.close()
    again = world.core("core-eu-2", remembers=False)
    assert again.baseline.present
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
    assert (await shown(core)).waits.startswith("core-eu has a baseline of another registry")
    code, _ = await adopt(core, core.registry.digest)
    assert code is Code.CONFLICT  # a Core that remembers goes before an operator
    assert not floors_of(world).exists()
    newest.write_bytes(record)  # as the one that remembers puts it back
    world.bus.stream.stored[TENANT_KEY] = good
    await until(lambda: core.baseline.present)
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
async def test_a_question_that_never_left_does_not_mean_that_nobody_has_a_baseline(
    world, monkeypatch, when
):
    await higher(world)
    core = await fresh(world)
    with monkeypatch.context() as patch:
        lost(core, patch, when)
        assert (await adopt(core, core.baseline.digest))[0] is Code.UNAVAILABLE
    assert not core.baseline.present
    assert (await adopt(core, core.baseline.digest))[0] is Code.CONFLICT  # as it was all the time
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
    assert not core.baseline.present
    assert not emitted(core, "registry.begun")
    assert "try again" in (await shown(core)).waits
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
    assert core.baseline.present
    assert core.baseline.digest == after
    await until(lambda: dict(Floors(floors_of(world)).items())["tenant", "acme"][0] == 2)
    core.keeper.close()


async def test_another_roster_in_between_is_no_agreement(world, monkeypatch):
    await kept(world)
    core = await fresh(world)
    bus = world.wire.join("somebody")

    async def reply(message):
        question = VERIFIER.registry_question(message.data)
        monkeypatch.setattr(type(core.me.rosters), "version", 99)
        await bus.publish(message.reply, answer_of(core.baseline.digest)(question))

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
    assert core.baseline.digest != one.baseline.digest
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
        make = answer_of(core.baseline.digest, **changed)
        await bus.publish(message.reply, make(question))

    await bus.subscribe(subjects.registry_question("eu"), reply)
    with pytest.raises(KcmError, match="not believed"):
        await core.joining.ask()
    assert not core.baseline.present
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
