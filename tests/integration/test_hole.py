"""A running broker loses messages of the control stream, and tells nobody."""

import json
import shutil

import pytest
from kcm import Admin
from kcm._internal.kills import Kills
from kcm_runtime.nats.provision import acknowledged
from kcm_runtime.nats.streams import last
from kcm_schemas import subjects
from kcm_schemas.codes import Code

from tests.integration.living import EU, Living, encrypt, eventually
from tests.integration.storage_rig import answer

pytestmark = pytest.mark.slow

CORES = (f"core-{EU}-1", f"core-{EU}-2")
STREAM = subjects.CONTROL_STREAM


@pytest.fixture(scope="module")
def region():
    with Living.started(regions=(EU,), cores=2) as made:
        yield made


async def bound(connection, messages):
    """Let the stream keep so many messages: the oldest ones go without a word to consumers."""
    config = await acknowledged(connection, STREAM)
    config["max_msgs"] = messages
    config.pop("metadata", None)
    body = json.dumps(config).encode()
    told = json.loads(await connection.request(f"$JS.API.STREAM.UPDATE.{STREAM}", body, 5))
    assert "error" not in told, told


async def behind(connection, sequence):
    """How many messages lie behind a sequence."""
    info = await connection.jetstream().stream_info(STREAM, subjects_filter=">")
    found = [await last(connection, STREAM, name) for name in info.state.subjects]
    return sum(one is not None and one.sequence > sequence for one in found)


async def complete(region, hold_id):
    async with Admin.open(region.context) as admin:
        until = admin.around.clock.elapsed() + 20
        async for status in Kills(admin, [EU]).watch(hold_id, until):
            if status.complete:
                return True
    return False


@pytest.mark.timeout(150)
async def test_a_hold_that_a_running_broker_loses_is_written_again_by_the_cores(region):
    dark = await region.tenant(regions=(EU,), kind="softkey")
    async with region.app() as app:
        secret = (await encrypt(app, dark, [b"dark"])).records
    hold = await region.kill(dark)
    place = subjects.control_hold(EU, "tenant", hold)
    async with region.operator() as connection:
        before = await last(connection, STREAM, place)
        await bound(connection, await behind(connection, before.sequence))
        assert await last(connection, STREAM, place) is None
        assert await last(connection, STREAM, subjects.control_roster(EU)) is None
        await bound(connection, -1)

        async def again():
            found = [
                await last(connection, STREAM, at) for at in (place, subjects.control_roster(EU))
            ]
            return all(one is not None and one.sequence > before.sequence for one in found)

        await eventually(again, within_s=90)
        assert (await last(connection, STREAM, place)).data == before.data
    assert await complete(region, hold)
    for name in CORES:  # nobody but the stream knows any more
        region.sigkill(name)
        shutil.rmtree(region.directory / "state" / name / "holds")
    for name in CORES:
        await region.restart(name)
    async with region.app() as app:

        async def killed():
            return (await answer(app, dark, secret))[0] is Code.TENANT_KILLED

        await eventually(killed)
