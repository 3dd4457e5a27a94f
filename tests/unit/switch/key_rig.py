"""Cores whose root keys refuse, cannot be reached, and are allowed again."""

import asyncio

from kcm_schemas.codes import KcmError

from tests.fakes.virtual import let_pass
from tests.unit.switch.statements import LINK, tenant


async def started(system, *names, tenants=None, **options):
    """Cores that are on record, with the tenants' keys made and open."""
    cores = [system.core(name, **options.get(name, {})) for name in names]
    await asyncio.gather(*(core.start(regions=False) for core in cores))
    await cores[0].make(*(tenants or [tenant()]))
    for core in cores:
        core.learn(LINK, *(tenants or [tenant()]))
        for one in tenants or [tenant()]:
            await core.loader.ring(one.tenant)
    return cores


def serves(core, name="acme"):
    """Whether a Core gives an output, opening what is closed."""

    async def once():
        try:
            permit = core.admission.admit(name, core.clock.elapsed())
            await core.loader.ring(name)
            core.admission.recheck(permit, core.clock.elapsed())
        except KcmError as error:
            return error.code
        return True

    return once()


async def until_served(core, within_s, name="acme"):
    end = core.clock.elapsed() + within_s
    while (answer := await serves(core, name)) is not True:
        assert core.clock.elapsed() < end, answer
        await let_pass(0.25)


def l1_holds(core):
    return [record for record in core.revocations.holds if record.hold.cause == "l1"]
