"""A development system that mends itself, and ends when it is told to."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from kcm_devsystem import system
from kcm_devsystem.errors import DevError
from kcm_schemas.codes import KcmError

from tests.audit_rig import until
from tests.integration.living import EU, Living, decrypt, encrypt, eventually

CORE = f"core-{EU}-1"


@pytest.fixture
def watched(tmp_path):
    options = system.Options(tmp_path / "system", regions=(EU,), cores=1, watch=True, visitor=True)
    made = Living(options, system.up(options))
    made.allow()
    yield made
    system.down(made.directory, wipe=True)


def pids(directory):
    return {row["name"]: row["pid"] for row in system.status(directory) if row["running"]}


async def test_what_dies_is_started_again_until_the_system_is_ended(watched):
    tenant = await watched.tenant(regions=(EU,), kind="softkey")
    before = pids(watched.directory)
    async with watched.app() as app:
        sealed = (await encrypt(app, tenant, [b"x"])).records
        for name in (EU, CORE):
            os.kill(before[name], signal.SIGKILL)

        async def back():
            now = pids(watched.directory)
            return now.keys() == before.keys() and all(
                now[name] != before[name] for name in (EU, CORE)
            )

        await eventually(back)

        async def opens():
            try:
                return (await decrypt(app, tenant, sealed)).plaintexts == [b"x"]
            except KcmError:
                return False

        await eventually(opens, within_s=40)
    # Without the watcher, the next `up` starts what died, the watcher too.
    now = pids(watched.directory)
    os.kill(now["watcher"], signal.SIGKILL)
    await until(lambda: "watcher" not in pids(watched.directory))
    state = await asyncio.to_thread(system.up, watched.options)
    assert {entry.process.name for entry in state.entries} == before.keys()
    assert pids(watched.directory).keys() == before.keys()
    with pytest.raises(DevError, match="runs already"):
        system.up(watched.options)
    ended = await asyncio.to_thread(system.down, watched.directory)
    assert ended[0] == "watcher"
    assert pids(watched.directory) == {}
    left = await asyncio.to_thread(_running, now.values())
    assert left == []


def _running(pids):
    """Those of the pids that have not ended; a zombie has."""
    stats = [path for pid in pids if (path := Path(f"/proc/{pid}/stat")).exists()]
    return [one for one in stats if one.read_text().rpartition(")")[2].split()[0] != "Z"]
