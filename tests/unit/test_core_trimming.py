"""A Core that empties its audit stream: on whose word, in which order, and what may fail."""

from __future__ import annotations

from hashlib import sha256

import pytest
from kcm_core.trimming.policy import Level, Policy
from kcm_runtime.audit.stream_chain import MARK_EVERY, Marks, Place, link
from kcm_runtime.nats.streams import StoreFull
from kcm_schemas import subjects
from kcm_schemas.audit import EventType
from kcm_schemas.auditor import Trim
from kcm_schemas.codec import encode
from kcm_schemas.labels import AUDIT_STREAM, ctx
from kcm_schemas.signed import Kind

from tests.unit.core_trimming_rig import BODY, DAY_S, KEEP, OneCore, World, read
from tests.vectors.families.messages import identity


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


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
