"""A finished kill stays what it was, whoever restarts, and its evidence is checked offline."""

import asyncio
import json
from pathlib import Path

import pytest
from kcm.exit_codes import Exit
from kcm_devsystem import system

from tests.integration.living import EU, US, Living, eventually
from tests.integration.test_cli_system import Shell

pytestmark = pytest.mark.slow


def restarted(living: Living) -> Living:
    """Everything down and up again, brokers included."""
    system.down(living.directory)
    options = system.Options(living.directory, cores=1, visitor=True)
    return Living(options, system.up(options))


async def shown(kcm: Shell, hold: str, region: str) -> str:
    done = await asyncio.to_thread(kcm, "hold", "show", hold, "-o", "json", "--region", region)
    return done.stdout


async def test_no_word_of_a_finished_kill_changes(fragile: Living, tmp_path: Path) -> None:
    kcm, tenant = Shell(fragile, tmp_path), await fragile.tenant()
    hold = json.loads(kcm("kill", tenant, "--reason", "a test").stdout)["hold_id"]

    async def alike() -> bool:
        told = {await shown(kcm, hold, region) for region in (EU, US)}
        return len(told) == 1 and json.loads(next(iter(told)))["concluded"] is not None

    await eventually(alike)
    before = await shown(kcm, hold, EU)
    assert json.loads(before)["complete"] is True
    assert {one["how"] for one in json.loads(before)["incarnations"]} == {"receipt"}
    again = fragile
    for _ in range(2):
        again = await asyncio.to_thread(restarted, again)
        kcm = Shell(again, tmp_path)
        for region in (EU, US):
            assert await shown(kcm, hold, region) == before

    root = again.context.root_public.hex()
    for region in (EU, US):
        kcm("hold", "export", hold[:8], "-o", f"{region}.json", "--region", region)
        told = json.loads(kcm("hold", "verify", f"{region}.json").stdout)
        assert told["good"], told
        kcm("hold", "verify", f"{region}.json", "--root", root, context=tmp_path / "none")
    kcm("hold", "verify", f"{EU}.json", "--root", "ab" * 32, expect=Exit.CHECK_FAILED)
    evidence = json.loads((tmp_path / f"{EU}.json").read_text())
    raw = evidence["result"]
    middle = len(raw) // 2
    evidence["result"] = raw[:middle] + ("A" if raw[middle] != "A" else "B") + raw[middle + 1 :]
    (tmp_path / "tampered.json").write_text(json.dumps(evidence))
    told = json.loads(kcm("hold", "verify", "tampered.json", expect=Exit.CHECK_FAILED).stdout)
    assert {one["check"]: one["state"] for one in told["checks"]}["result"] == "failed"

    kcm("lift", hold, "--reason", "over")
    lifted = json.loads(await shown(kcm, hold, EU))
    assert lifted["lifted"]
    assert lifted["incarnations"] == json.loads(before)["incarnations"]
    kcm("hold", "export", hold, "-o", "lifted.json")
    assert json.loads(kcm("hold", "verify", "lifted.json").stdout)["good"]
