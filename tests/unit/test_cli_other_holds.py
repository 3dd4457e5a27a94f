"""`kcm kill` of what is held already: another hold, and the report of those before it."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kcm.cli.other_holds import reading_others
from kcm.exit_codes import Exit
from kcm_schemas.admin.holds import HoldView
from kcm_schemas.admin.requests import AdminRequest
from kcm_schemas.codec import Message
from kcm_schemas.codes import Code, KcmError

from tests.unit.operator_rig import Cores, Desk


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


@pytest.fixture
def cores(desk: Desk) -> Cores:
    return Cores(desk.system, looks=0)


def test_a_kill_of_a_killed_tenant_is_placed_and_names_the_holds_before_it(
    desk: Desk, cores: Cores
) -> None:
    code, out, err = desk.run("kill", "acme", "--reason", "first", "-o", "json")
    assert (code, json.loads(out)["already_held"]) == (Exit.OK, [])
    desk.run("kill", "beta")
    desk.run("kill", "--link", "acme")
    code, out, err = desk.run("kill", "acme", "--reason", "second", "-o", "table")
    assert (code, len(cores.held)) == (Exit.OK, 4)
    first, *_, last = cores.held
    told = err.splitlines()
    place = told.index(
        "tenant acme was held already: 1 other hold stays in force until lifted, as the new one "
        "does"
    )
    assert told[place + 1].startswith(f"hold {first.hex()[:16]} on tenant acme, since 20")
    assert told[place + 1].endswith(" by alice, cause operator: first")
    code, out, _ = desk.run("kill", "acme", "-o", "json")
    assert code == Exit.OK
    held = {one["hold_id"]: one for one in json.loads(out)["already_held"]}
    assert set(held) == {first.hex(), last.hex()}
    assert held[first.hex()]["issuer"] == "alice"
    assert held[first.hex()]["reason"] == "first"


def test_a_lifted_hold_is_not_one_before(desk: Desk, cores: Cores) -> None:
    desk.run("kill", "acme")
    (first,) = cores.held
    desk.run("lift", first.hex(), "--reason", "over")
    out = desk.run("kill", "acme", "-o", "json")[1]
    assert json.loads(out)["already_held"] == []
    assert "already" not in desk.run("kill", "beta", "-o", "table")[2]


def test_the_holds_before_are_read_after_the_kill_is_placed(desk: Desk, cores: Cores) -> None:
    desk.run("kill", "acme")
    asked = desk.system.cores["eu"].requests
    asked.clear()
    desk.run("kill", "acme")
    verbs = [request.verb for request in asked]
    assert verbs.index("put") < verbs.index("list")
    assert verbs.count("list") == 1


def test_many_holds_are_counted(desk: Desk, cores: Cores) -> None:
    for _ in range(10):
        desk.run("kill", "acme")
    err = desk.run("kill", "acme", "-o", "table")[2]
    assert "10 other holds stay in force" in err
    assert "and 2 more: `kcm hold list` shows them" in err


def test_that_the_holds_are_not_known_fails_no_kill(desk: Desk, cores: Cores) -> None:
    def silent(request: AdminRequest, operator: str) -> Message:
        raise KcmError(Code.UNAVAILABLE, "not now")

    desk.system.everywhere("hold", "list", silent)
    code, out, _ = desk.run("kill", "acme", "-o", "json")
    assert (code, json.loads(out)["already_held"]) == (Exit.OK, None)
    code, _, err = desk.run("kill", "acme", "-o", "table")
    assert code == Exit.OK
    assert "it is not known whether tenant acme was held already" in err


async def test_a_list_without_an_end_does_not_keep_the_result(desk: Desk) -> None:
    class Kills:
        async def listing(self) -> list[HoldView]:
            await asyncio.Event().wait()
            raise AssertionError

    hold: Any = SimpleNamespace(id=bytes(16), scope="tenant", target="acme")
    kills: Any = Kills()
    async with asyncio.timeout(60), reading_others(kills, hold) as others:
        assert (await others()).views is None


def test_the_json_result_is_bounded(
    desk: Desk, cores: Cores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kcm.cli.other_holds.TOLD_MAX", 2)
    for _ in range(3):
        desk.run("kill", "acme")
    told = json.loads(desk.run("kill", "acme", "-o", "json")[1])
    assert (len(told["already_held"]), told["already_held_count"]) == (2, 3)


def test_a_lift_names_what_keeps_its_target_out_of_service(desk: Desk, cores: Cores) -> None:
    for _ in range(3):
        desk.run("kill", "acme")
    desk.run("kill", "beta")
    first, second, third, _ = cores.held
    err = desk.run("lift", first.hex(), "--reason", "over", "-o", "table")[2]
    (told,) = [line for line in err.splitlines() if "stays out of service" in line]
    assert told.startswith("tenant acme ")
    assert {one.hex()[:16] in told for one in (second, third)} == {True}
    assert first.hex()[:16] not in told
    err = desk.run("lift", second.hex(), third.hex(), "--reason", "over", "-o", "table")[2]
    assert "stays out of service" not in err


def test_a_lift_says_that_other_holds_are_not_known(desk: Desk, cores: Cores) -> None:
    def silent(request: AdminRequest, operator: str) -> Message:
        raise KcmError(Code.UNAVAILABLE, "not now")

    desk.run("kill", "acme")
    (hold,) = cores.held
    desk.system.everywhere("hold", "list", silent)
    code, _, err = desk.run("lift", hold.hex(), "--reason", "over", "-o", "table")
    assert code == Exit.OK
    assert "it is not known whether other holds are in force" in err


def test_a_region_that_is_retired_twice_has_two_holds(desk: Desk, cores: Cores) -> None:
    retire = ("region", "retire", "us", "--reason", "lost", "-o")
    assert json.loads(desk.run(*retire, "json")[1])["already_held"] == []
    assert "region us was held already: 1 other hold stays" in desk.run(*retire, "table")[2]
