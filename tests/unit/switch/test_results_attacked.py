"""Results that somebody made up, changed or sent again: no word of a finished kill changes."""

import pytest
from kcm_killswitch.coordinator.result_watch import LOOKED_AT_MAX
from kcm_runtime.roster.store import Rosters
from kcm_schemas import subjects
from kcm_schemas.codec import encode
from kcm_schemas.control import Receipt
from kcm_schemas.signed import SIGNATURES_MAX, Kind, Signature, read_signed
from kcm_trust.verify import Untrusted, Verifier

from tests.fakes.virtual import let_pass, settled, until
from tests.unit.switch.results import Bucket, Failing, by, finished, started
from tests.unit.switch.rig import watched
from tests.unit.switch.roster_rig import without
from tests.unit.switch.statements import LINK, VERIFIER, held, hold, signed, tenant

NO_CORE_OF_THE_REGION = [
    ["gw-eu-1"],
    ["core-us-1"],
    ["security"],
    ["core-us-1", "gw-eu-1"],
]
"""Who signs what no region may tell as its own."""


def changed(content, **changes):
    return content.model_copy(update=changes)


def incarnations(content, **changes):
    return [changed(one, **changes) for one in content.incarnations]


@pytest.fixture
async def core(system):
    return await started(system, "core-eu-1")


@pytest.mark.parametrize("signers", NO_CORE_OF_THE_REGION)
@pytest.mark.parametrize("remembers", [True, False])
async def test_nobodys_result_in_the_bucket_is_told(system, core, signers, remembers):
    one, status = await finished(system, core)
    bucket = Bucket(system, one)
    forged = changed(bucket.content, concluded_ms=0, heard_ms=0)
    bucket.put(by(forged, *signers))
    if not remembers:
        await core.close()
        core = await started(system, "core-eu-1")
        await watched(system)
    told = await core.kills.status(one.id)
    assert told.concluded.concluded_ms >= status.concluded.concluded_ms
    assert "core-eu-1" in bucket.signers
    assert told.concluded == status.concluded or not remembers


@pytest.mark.parametrize(
    "change",
    [
        lambda one: {"hold_id": hold().id},
        lambda one: {"receipts": []},
        lambda one: {"receipts": [], "left_out": len(one.receipts)},
        lambda one: {"receipts": one.receipts * 2},
        lambda one: {"receipts": one.receipts * 2, "incarnations": one.incarnations * 2},
        lambda one: {"incarnations": incarnations(one, purge_us=one.incarnations[0].purge_us + 1)},
        lambda one: {"incarnations": incarnations(one, instance="core-eu-3")},
        lambda one: {"incarnations": incarnations(one, incarnation=bytes(16))},
        lambda one: {"incarnations": incarnations(one, how="waiting"), "receipts": []},
        lambda one: {"incarnations": [], "receipts": []},
        lambda one: {"regions": one.regions * 2},
        lambda one: {"regions": [changed(one.regions[0], how="waiting")]},
        lambda one: {"heard_ms": one.concluded_ms + 1},
    ],
)
async def test_a_result_that_does_not_add_up_counts_nothing_whoever_signed_it(
    system, core, change
) -> None:
    one, status = await finished(system, core)
    bucket = Bucket(system, one)
    kept = bucket.content
    bucket.put(by(changed(kept, **change(kept)), "core-eu-1", "core-eu-2"))
    assert await core.kills.status(one.id) == status
    assert bucket.content == kept


async def test_receipts_of_another_hold_or_instance_are_not_exchanged(system, core):
    one, status = await finished(system, core)
    bucket = Bucket(system, one)
    kept, listed = bucket.content, bucket.content.incarnations[0]
    word = Receipt(
        hold_id=one.id,
        instance="core-eu-1",
        incarnation=listed.incarnation,
        role=listed.role,
        region="eu",
        keys=listed.keys,
        purge_us=listed.purge_us,
        unkept="",
        reached=bytes(32),
    )
    assert core.me.verifier.receipt(signed(Kind.RECEIPT, word, "core-eu-1")) == word
    for forged in (
        signed(Kind.RECEIPT, changed(word, hold_id=hold().id), "core-eu-1"),
        signed(Kind.RECEIPT, changed(word, unkept="disk full"), "core-eu-1"),
        signed(Kind.RECEIPT, word, "core-eu-2"),
        signed(Kind.RECEIPT, word, "core-us-1"),
    ):
        bucket.put(by(changed(kept, receipts=[forged]), "core-eu-1", "core-eu-2"))
        assert await core.kills.status(one.id) == status
        assert bucket.content == kept


async def test_a_retired_cores_result_counts_no_more(system, core):
    """Its key may be anybody's: what it concluded stays only where another one signed it, too."""
    first = await started(system, "core-eu-2")
    one, status = await finished(system, first)
    bucket = Bucket(system, one)
    alone = by(changed(bucket.content, heard_ms=0, concluded_ms=0), "core-eu-2")
    assert await core.kills.status(one.id) == status
    kept = bucket.raw
    await first.close()
    await core.close()
    core = await started(system, "core-eu-1", rosters=Rosters(Verifier(without("core-eu-2"))))
    await watched(system)
    assert (await core.kills.status(one.id)).concluded == status.concluded
    bucket.put(alone)
    assert (await core.kills.status(one.id)).concluded == status.concluded
    assert read_signed(bucket.raw).body == read_signed(kept).body


async def test_an_export_has_the_result_that_is_told_and_not_what_is_there(system, core):
    one, status = await finished(system, core)
    bucket = Bucket(system, one)
    kept = bucket.raw
    assert core.results.signed(one.id, status.concluded) == kept
    bucket.put(by(changed(bucket.content, concluded_ms=0, heard_ms=0), "core-eu-2"))
    told = await core.kills.status(one.id)
    raw = core.results.signed(one.id, told.concluded)
    assert VERIFIER.result(raw).result.concluded_ms == told.concluded.concluded_ms
    assert core.results.signed(one.id, None) == b""


# What comes from other regions.


async def pair(system):
    """A Core in each of two regions that both have the tenant, and a Gateway at home."""
    gateway = system.incarnation("gw-eu-1")
    gateway.learn(LINK, tenant(regions=["eu", "us"]))
    await gateway.start()
    home = await started(system, "core-eu-1", regions=True, of=("eu", "us"))
    abroad = await started(system, "core-us-1", regions=True, of=("eu", "us"))
    await let_pass(5)
    return home, abroad


@pytest.mark.parametrize("signers", NO_CORE_OF_THE_REGION)
async def test_a_result_in_the_name_of_another_region_is_refused(system, core, signers):
    one, _ = await finished(system, core)
    content = Bucket(system, one).content
    for source in ("eu", "us", "ap"):
        with pytest.raises(Untrusted):
            core.results.heard(by(content, *signers), source)
    with pytest.raises(Untrusted):
        core.results.heard(by(content, "core-eu-1"), "us")


async def test_a_region_that_lies_has_no_other_region_tell_its_words(system):
    """It says to have concluded first of all, that nobody answered, or leaves somebody out."""
    home, abroad = await pair(system)
    one, _ = await finished(system, abroad)
    good = Bucket(system, one, "us")
    kept = good.content
    without_gateway = changed(
        kept,
        concluded_ms=0, heard_ms=0,
        incarnations=[each for each in kept.incarnations if each.role != "gateway"],
        receipts=[
            raw for raw in kept.receipts
            if VERIFIER.receipt(raw).role != "gateway"
        ],
    )  # fmt: skip
    assert len(without_gateway.receipts) < len(kept.receipts)
    other = await started(system, "core-eu-2", regions=True, of=("eu", "us"))
    Bucket(system, one).empty()
    good.put(by(without_gateway, "core-us-1", "core-us-2"))
    await home.close()
    await watched(system)
    told = await other.kills.status(one.id)
    assert told.concluded is not None
    assert told.concluded.concluded_ms > 0
    assert {each.instance for each in told.incarnations} >= {"gw-eu-1"}


async def test_what_another_region_concluded_is_told_here_in_the_same_words(system):
    home, abroad = await pair(system)
    one, status = await finished(system, abroad)
    bucket = Bucket(system, one)
    await until(lambda: bucket.place in bucket.stream.stored)
    assert await home.kills.status(one.id) == status
    assert "core-us-1" in bucket.signers


async def test_two_regions_that_conclude_at_the_same_moment_keep_one_each(system):
    """Neither can know of the other's. Both are good, and no word of either changes."""
    home, abroad = await pair(system)
    here, there = Failing(system, "eu"), Failing(system, "us")
    one, _ = await finished(system, home)
    while (await abroad.kills.status(one.id)).concluded is None:
        await let_pass(0.1)
    here.times = there.times = 0
    buckets = [Bucket(system, one, region) for region in ("eu", "us")]
    await until(lambda: all(each.place in each.stream.stored for each in buckets), 120)
    told = [await core.kills.status(one.id) for core in (home, abroad)]
    assert [each.concluded.region for each in told] == ["eu", "us"]
    await let_pass(120)
    for core, said in zip((home, abroad), told, strict=True):
        assert await core.kills.status(one.id) == said


async def test_a_result_of_a_hold_that_is_not_known_costs_no_look(system, core):
    one, _ = await finished(system, core)
    content = changed(Bucket(system, one).content, region="us", instance="core-us-1")
    for _ in range(100):
        other = changed(content, hold_id=hold().id)
        await system.wire.join("core-us-1").publish(
            subjects.receipt("us", other.hold_id), by(other, "core-us-1")
        )
    await settled()
    core.kills.receipts.read()
    assert not core.kills.looks.of("us")


async def test_a_region_that_lies_about_many_kills_keeps_nobody_from_looking(system, core):
    """Of holds that there are: a Core may place as many as it likes on its own keys."""
    one, _ = await finished(system, core)
    content = Bucket(system, one).content
    lie = changed(content, region="us", instance="core-us-1")
    others = [hold() for _ in range(LOOKED_AT_MAX + 1)]
    for other in others:
        core.switch.issue(core.switch.verify(held(other)))
        raw = by(changed(lie, hold_id=other.id), "core-us-1")
        new = core.kills.take_result(raw, "us")
        assert new == (other is not others[-1]), "and it costs its region"
        assert not core.kills.take_result(raw, "us"), "it says nothing new"
    assert len(core.kills.looks.of("us")) == LOOKED_AT_MAX
    raw = by(changed(content, region="ap", instance="core-ap-1", hold_id=others[0].id), "core-ap-1")
    assert core.kills.take_result(raw, "ap")
    assert core.kills.looks.of("ap") == {others[0].id}
    await until(lambda: not core.kills.looks.of("ap"), 60)


async def test_whoever_concluded_stays_among_the_signers_of_a_full_result(system, core):
    one, _ = await finished(system, core)
    content = changed(Bucket(system, one).content, region="us", instance="core-us-3")
    others = [f"core-{region}-{n}" for region in ("ap", "us") for n in (1, 2, 3)]
    full = VERIFIER.result(by(content, *others, "core-eu-2", "core-eu-3"))
    assert len(full.statement.signatures) == SIGNATURES_MAX
    more = core.results.checks.countersigned(full)
    names = {each.signer for each in more.statement.signatures}
    assert len(names) == SIGNATURES_MAX
    assert {"core-eu-1", "core-us-3"} <= names


async def test_signatures_that_count_nothing_keep_nobody_from_signing(system, core):
    """Whoever has the bucket fills the list up with names of nobody."""
    one, status = await finished(system, core)
    bucket = Bucket(system, one)
    statement = read_signed(bucket.raw)
    spare = statement.signatures[0].signature
    nobody = [Signature(signer=f"x-{n}", signature=spare) for n in range(SIGNATURES_MAX - 1)]
    full = statement.model_copy(update={"signatures": [*statement.signatures, *nobody]})
    bucket.put(encode(full))
    other = await started(system, "core-eu-2")
    await watched(system)
    assert await other.kills.status(one.id) == status
    assert bucket.signers == ["core-eu-1", "core-eu-2"]
