"""An export has a result where the status tells one, and only then."""

import pytest
from kcm_killswitch.coordinator.evidence_export import EvidenceExport
from kcm_schemas import subjects

from tests.fakes.virtual import let_pass
from tests.unit.switch.results import Bucket, by, finished, started
from tests.unit.switch.statements import lifted


@pytest.fixture
async def core(system):
    return await started(system, "core-eu-1")


async def exported(core, one):
    exporting = EvidenceExport(core.kills, core.results, core.revocations, core.switch)
    return await exporting.export(one.id, core.clock.unix_ms() + 5000)


async def test_a_finished_kill_has_its_result_also_when_it_is_lifted(system, core):
    one, _ = await finished(system, core)
    kept = Bucket(system, one).raw
    for lift in (False, True):
        if lift:
            await core.kills.place(lifted(one), core.clock.unix_ms() + 5000)
        told = await exported(core, one)
        assert (told.complete, told.result, told.unstored) == (True, kept, "")
        assert bool(told.lift) == lift


async def test_a_hold_that_was_written_again_has_no_result(system, core):
    """While it was not in the stream an incarnation may have begun that has not read it."""
    one, _ = await finished(system, core)
    core.stream.expire(subjects.control_hold("eu", one.scope, one.id))
    core.switch.holds.replicator.lost(one.id)
    system.incarnation("gw-eu-1")
    await core.switch.looked_up(one.id)
    await let_pass(1)
    assert not (await core.kills.status(one.id)).complete
    told = await exported(core, one)
    assert (told.complete, told.result) == (False, b"")


async def test_a_result_that_is_not_told_is_not_exported(system, core):
    one, status = await finished(system, core)
    bucket = Bucket(system, one)
    raw = by(bucket.content.model_copy(update={"concluded_ms": 2**50}), "core-eu-1", "core-eu-2")
    bucket.put(raw)
    told = await exported(core, one)
    assert told.result not in (b"", raw)
    assert core.me.verifier.result(told.result).result.concluded_ms == (
        status.concluded.concluded_ms
    )
