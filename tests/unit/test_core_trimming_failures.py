"""A trim that is interrupted, repeated or cannot be stored: what the next round does."""

from __future__ import annotations

import json

import pytest
from kcm_core.trimming import TrimFiles
from kcm_runtime.config import ConfigError
from kcm_schemas.audit import EventType
from kcm_schemas.codes import Code, KcmError

from tests.unit.core_trimming_rig import OneCore, World, read


class Crash(Exception):
    """The process ended here."""


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.mark.parametrize("who", ["the same Core", "another one", "one without stored state"])
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
        "one without stored state": OneCore(world, name="core-eu-2"),
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
    files = TrimFiles(world.directory / "core-eu")
    assert files.reading() is not None
    reading = world.directory / "core-eu" / "audit-reading.json"
    content = json.loads(reading.read_text())
    for wrong in ({}, {**content, "version": 2}, {**content, "place": 1}):
        reading.write_text(json.dumps(wrong))
        assert files.reading() is None
    heads = world.directory / "core-eu" / "audit-heads.json"
    content = json.loads(heads.read_text())
    del content["version"]
    heads.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"audit-heads.* has no version of its format"):
        OneCore(world)
    for wrong in ('{"version": 1}', '{"version": 1, "created": 1e999, "heads": {}}'):
        heads.write_text(wrong)
        with pytest.raises(ConfigError, match=r"audit-heads.* is damaged"):
            OneCore(world)


async def test_without_the_broker_nothing_happens(world):
    world.fill(200)
    core = await read(world)
    core.store.connected = False
    with pytest.raises(KcmError) as caught:
        await core.round()
    assert caught.value.code is Code.UNAVAILABLE
