"""A finished kill stays what it was, whoever answers and whoever was started again."""

from kcm_schemas import subjects
from kcm_schemas.signed import read_signed

from tests.unit.switch.rig import watched
from tests.unit.switch.statements import LINK, held, hold, tenant


async def started(system, name):
    core = system.core(name)
    core.learn(LINK, tenant())
    await core.start(regions=False, watch=False)
    return core


async def finished(system, core):
    await watched(system)
    one = hold()
    status = await core.kills.place(held(one), core.clock.unix_ms() + 20_000)
    assert status.complete
    return one, status


def stored(system, one):
    place = subjects.bucket_subject(subjects.RESULTS_BUCKET, "result", one.id.hex())
    return system.buses["eu"].stream.stored[place][1]


async def test_who_is_started_again_tells_the_same(system):
    core = await started(system, "core-eu-1")
    one, status = await finished(system, core)
    assert status.concluded is not None
    assert status.concluded.receipts == 1
    for _ in range(2):
        await core.close()
        core = await started(system, "core-eu-1")
        assert await core.kills.status(one.id) == status


async def test_another_core_tells_the_same_and_signs_it(system):
    core = await started(system, "core-eu-1")
    one, status = await finished(system, core)
    other = await started(system, "core-eu-2")
    assert not (await other.kills.status(one.id)).complete, "it has not watched yet"
    await watched(system)
    assert await other.kills.status(one.id) == status
    await other.close()
    other = await started(system, "core-eu-2")
    assert await other.kills.status(one.id) == status, "it has signed it"
    signers = [each.signer for each in read_signed(stored(system, one)).signatures]
    assert signers == ["core-eu-1", "core-eu-2"]
