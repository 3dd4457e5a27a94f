"""A Core is killed at every step of moving a tenant to another key: old or new, never neither."""

import asyncio

import pytest
from kcm import Admin
from kcm._internal import statements
from kcm_core.providers.state import L1State
from kcm_devsystem import parts, system
from kcm_devsystem.configs import config_file
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Role

from tests.integration.living import EU, decrypt, encrypt, eventually
from tests.integration.unsealing import flip

pytestmark = pytest.mark.slow

CORE = f"core-{EU}-1"
STEPS_MAX = 100


@pytest.fixture
async def mortal(one_core, monkeypatch):
    """A system whose Core of the first region dies where it is told to."""
    monkeypatch.setitem(parts.MODULES, Role.CORE, "tests.integration.dying_core")
    one_core.sigkill(CORE)
    await one_core.restart(CORE)
    return one_core


class Move:
    """One tenant, two keys, and a Core that is killed while it moves from one to the other."""

    def __init__(self, living, admin, tenant, links):
        self.living, self.admin, self.tenant, self.links = living, admin, tenant, links
        config = config_file(living.directory, next(
            member for member in living.options.everybody if member.name == CORE
        ))  # fmt: skip
        self.die, self.touched = config.with_suffix(".die"), config.with_suffix(".touched")

    async def to(self, link, revision):
        """Ask for it until it is done or the Core is dead; returns whether it is done."""
        statement = statements.tenant(
            self.admin.identity, self.tenant, link=link, regions=(EU,), region_quorum="all",
            revision=revision,
        )  # fmt: skip
        asked = asyncio.create_task(self.admin.put(EU, "tenant", statement))
        while not asked.done() and self._lives():
            await asyncio.wait({asked}, timeout=0.02)
        if asked.done() and asked.exception() is None:
            return True
        asked.cancel()
        await asyncio.wait({asked})
        assert not self._lives(), "it was refused"
        return False

    async def named(self):
        return (await self.admin.tenant(EU, self.tenant)).link

    async def opens_alone(self, app, link, record):
        """The key of that link is enough."""
        for other in self.links:
            state = L1State.ENABLED if other == link else L1State.DELETED
            flip(self.living.directory / "l1" / other, state)

        async def does():
            try:
                reply = await decrypt(app, self.tenant, [record])
            except KcmError as error:
                assert error.code in {Code.UNAVAILABLE, Code.TENANT_UNAVAILABLE}, error
                return False
            return reply.plaintexts == [b"x"]

        await eventually(does, within_s=30)
        for other in self.links:
            flip(self.living.directory / "l1" / other, L1State.ENABLED)

    def _lives(self):
        return any(
            row["running"] for row in system.status(self.living.directory) if row["name"] == CORE
        )


@pytest.mark.timeout(360)
async def test_a_core_that_is_killed_at_any_step_leaves_the_old_key_or_the_new_one(mortal):
    tenant = await mortal.tenant(regions=(EU,), kind="softkey")
    links = (tenant, f"{tenant}-new")
    uri = await asyncio.to_thread(mortal.keys.create, links[1], "softkey")
    seen, step, revision = set(), 0, 1
    async with Admin.open(mortal.context) as admin, mortal.app() as app:
        await admin.put_link(EU, statements.link(admin.identity, links[1], uri=uri, model="byok"))
        record = (await encrypt(app, tenant, [b"x"])).records[0]
        move = Move(mortal, admin, tenant, links)
        done = False
        while not done:
            step, revision = step + 1, revision + 1
            assert step < STEPS_MAX
            old, new = links[step % 2 == 0], links[step % 2 == 1]
            move.die.write_text(str(step))
            done = await move.to(new, revision)
            if not done:
                move.die.unlink()
                await mortal.restart(CORE)
                named = await move.named()
                seen.add("new" if named == new else "old")
                assert named in {old, new}
                await move.opens_alone(app, named, record)
                assert await move.to(new, revision), "the same command goes on"
            assert await move.named() == new
            await move.opens_alone(app, new, record)
        assert step == int(move.touched.read_text()) + 1, "every step was tried"
    assert seen == {"old", "new"}
