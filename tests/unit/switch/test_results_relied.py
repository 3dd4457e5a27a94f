"""Whose result a Core tells and signs: its own, and another's where its own facts bear it out."""

import asyncio

import pytest
from kcm_schemas.admin.kill_status import IncarnationStatus, RegionStatus
from kcm_schemas.kill_result import Result
from kcm_trust.result_statements import CLOCKS_APART_MS
from kcm_trust.verify import Untrusted
from nats.js import errors as js_errors

from tests.fakes.virtual import let_pass
from tests.unit.switch.results import Bucket, by, finished, started
from tests.unit.switch.rig import watched
from tests.unit.switch.statements import LINK, held, hold, lifted, tenant


def made_up(core, one, author):
    """A kill that is finished, by a list of nobody but a Core that does not run any more."""
    gone = IncarnationStatus(
        instance="core-eu-1", incarnation=b"x" * 16, role="core", region="eu", how="lease-ended",
        keys=0, purge_us=0, after_ms=0, trouble="", retired=False, left_ms=0,
    )  # fmt: skip
    at = core.switch.durable_at(one.id)
    return Result(
        hold_id=one.id, region="eu", instance=author, heard_ms=1, concluded_ms=2, roster=1,
        regions=[RegionStatus(region="eu", durable_at=at, how="durable", left_ms=0)],
        incarnations=[gone], receipts=[], left_out=0,
    )  # fmt: skip


@pytest.fixture
async def core(system):
    return await started(system, "core-eu-1")


@pytest.fixture
async def gateway(system):
    """One that keeps its keys, whatever is killed."""
    made = system.incarnation("gw-eu-1")
    made.learn(LINK, tenant())
    made.broken.add("acme")
    await made.start()
    return made


@pytest.mark.parametrize("author", ["core-eu-1", "core-eu-2"])
@pytest.mark.parametrize("restarted", [False, True])
async def test_who_knows_of_keys_says_complete_on_nobodys_word(
    system, core, gateway, author, restarted
):
    one = hold()
    status = await core.kills.place(held(one), core.clock.unix_ms() + 5000)
    assert not status.complete
    bucket, raw = Bucket(system, one), by(made_up(core, one, author), "core-eu-2")
    bucket.put(raw)
    if restarted:
        await core.close()
        core = await started(system, "core-eu-1")
    await let_pass(1)
    print(await core.switch.facts(one.id))
    told = await core.kills.status(one.id)
    assert (told.complete, told.concluded) == (False, None)
    assert not gateway.purged
    assert bucket.raw == raw, "nobody has signed it, too"


@pytest.mark.parametrize("author", ["core-eu-1", "core-eu-2"])
async def test_who_finds_it_complete_tells_and_signs_the_own_words(system, core, author):
    """The list that another Core made up leaves out who purged."""
    gateway = system.incarnation("gw-eu-1")
    gateway.learn(LINK, tenant())
    await gateway.start()
    await watched(system)
    one = hold()
    before = core.clock.unix_ms()
    await core.kills.place(held(one), before + 5000)
    bucket, lie = Bucket(system, one), made_up(core, one, author)
    for _ in range(2):
        bucket.put(by(lie, "core-eu-2"))
        await let_pass(1)
        told = await core.kills.status(one.id)
        assert told.complete
        assert told.concluded.instance == "core-eu-1"
        assert told.concluded.concluded_ms >= before
        assert {each.instance for each in told.incarnations} == {"core-eu-1", "gw-eu-1"}
        assert bucket.content != lie or bucket.signers == ["core-eu-2"]
        raw = core.results.signed(one.id, told.concluded)
        assert core.me.verifier.result(raw).signed_by("core-eu-1")


@pytest.mark.parametrize("cut_off", [False, True])
async def test_a_stored_result_stays_told_though_another_is_put_there(system, cut_off):
    """Also while the facts of now are not complete: a region is not heard any more."""
    core = await started(system, "core-eu-1", regions=True, of=("eu", "us"))
    abroad = await started(system, "core-us-1", regions=True, of=("eu", "us"))
    one, status = await finished(system, core)
    bucket, lie = Bucket(system, one), made_up(core, one, "core-eu-2")
    if cut_off:
        await abroad.close()
    bucket.put(by(lie, "core-eu-2"))
    told = await core.kills.status(one.id)
    assert (told.complete, told.concluded, told.incarnations) == (
        True,
        status.concluded,
        status.incarnations,
    )
    if cut_off:
        assert "another result is stored" in told.unstored
        assert bucket.signers == ["core-eu-2"]
    else:
        assert told == status
        assert bucket.content != lie, "its own was stored first"


async def test_another_cores_result_of_a_lifted_kill_is_told_and_not_signed(system, core):
    """Nobody can find out any more: it is told as the word of who signed it."""
    one = hold()
    await core.kills.place(held(one), core.clock.unix_ms() + 5000)
    bucket, lie = Bucket(system, one), made_up(core, one, "core-eu-2")
    await core.kills.place(lifted(one), core.clock.unix_ms() + 5000)
    bucket.put(by(lie, "core-eu-2"))
    for _ in range(2):
        told = await core.kills.status(one.id)
        assert told.concluded.instance == "core-eu-2"
        assert core.results.signed(one.id, told.concluded) == by(lie, "core-eu-2")
        # Whatever comes in its place, it is not put back.
        bucket.put(by(lie.model_copy(update={"concluded_ms": 3}), "core-eu-2"))
        await core.kills.status(one.id)
        assert bucket.signers == ["core-eu-2"]
        bucket.put(by(lie, "core-eu-2"))
    bucket.put(by(made_up(core, one, "core-eu-1"), "core-eu-2"))
    assert (await core.kills.status(one.id)).concluded is None
    bucket.put(by(made_up(core, one, "core-eu-1"), "core-us-1"))
    assert (await core.kills.status(one.id)).concluded is None


async def test_a_result_in_the_name_of_another_core_is_refused(system, core):
    one, _ = await finished(system, core)
    content = Bucket(system, one).content.model_copy(update={"instance": "core-eu-3"})
    with pytest.raises(Untrusted, match="another Core"):
        core.results.heard(by(content, "core-eu-2"), "eu")
    assert core.results.heard(by(content, "core-eu-2", "core-eu-3"), "eu")


@pytest.mark.parametrize(("heard_ms", "concluded_ms"), [(0, 1), (None, 2**60)])
async def test_nobody_signs_times_that_cannot_be_true(system, core, heard_ms, concluded_ms):
    one = hold(issued_ms=core.clock.unix_ms())
    await watched(system)
    await core.kills.place(held(one), core.clock.unix_ms() + 20_000)
    bucket = Bucket(system, one)
    heard_ms = core.clock.unix_ms() if heard_ms is None else heard_ms
    lie = bucket.content.model_copy(
        update={"instance": "core-eu-2", "heard_ms": heard_ms, "concluded_ms": concluded_ms}
    )
    bucket.put(by(lie, "core-eu-2"))
    await core.close()
    core = await started(system, "core-eu-1")
    await watched(system)
    told = await core.kills.status(one.id)
    assert told.complete
    assert told.concluded.instance == "core-eu-1"
    assert "another result is stored" in told.unstored
    assert bucket.signers == ["core-eu-2"]


async def test_a_core_whose_clock_is_off_concludes_nothing_and_says_why(system, core):
    await watched(system)
    one = hold(issued_ms=core.clock.unix_ms() + 2 * CLOCKS_APART_MS)
    told = await core.kills.place(held(one), core.clock.unix_ms() + 20_000)
    assert (told.complete, told.concluded) == (True, None)
    assert "a clock is wrong" in told.unstored


async def test_two_cores_that_did_not_make_it_sign_it_at_the_same_moment(system, core):
    one, status = await finished(system, core)
    others = [await started(system, f"core-eu-{n}") for n in (2, 3)]
    await watched(system)
    told = await asyncio.gather(*(other.kills.status(one.id) for other in others))
    assert told == [status, status]
    assert Bucket(system, one).signers == ["core-eu-1", "core-eu-2", "core-eu-3"]


async def test_who_cannot_sign_it_tells_it_all_the_same(system, core):
    """Somebody writes between the reading and the signing, and then nothing can be read."""
    one, status = await finished(system, core)
    other = await started(system, "core-eu-2")
    await watched(system)
    bucket, written = Bucket(system, one), []

    async def before(operation, subject):
        if "result" in subject and operation == "put":
            bucket.put(bucket.raw)
            written.append(subject)
        elif "result" in subject and written:
            raise js_errors.APIError(code=503)

    bucket.stream.before = before
    assert await other.kills.status(one.id) == status
    assert written
    assert bucket.signers == ["core-eu-1"]
