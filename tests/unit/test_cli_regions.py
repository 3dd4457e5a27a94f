"""``kcm region list``: who serves, who does not, and why."""

import json
from pathlib import Path

import pytest
from kcm.exit_codes import Exit

from tests.unit import operator_rig, test_cli_registry


class Desk(operator_rig.Desk):
    """Regions whose Cores say whether they serve, and the holds that retire regions."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.registries = test_cli_registry.Desk(directory, capsys)
        self.registries.baseline["eu"] = True
        self.system = self.registries.system
        self.holds = operator_rig.Cores(self.system, looks=0)

    def listed(self) -> tuple[int, dict[str, dict[str, object]], str]:
        code, out, err = self.run("region", "list", "-o", "json")
        return code, {row["region"]: row for row in json.loads(out)}, err


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


def test_regions_that_serve_are_in_order(desk: Desk) -> None:
    code, rows, err = desk.listed()
    assert (code, err) == (Exit.OK, "")
    assert rows["eu"]["serving"] == ["core-eu"]
    assert rows["us"]["not_serving"] == {}
    out = desk.run("region", "list", "-o", "table")[1]
    assert out.count("1 of 1") == 2


@pytest.mark.parametrize("how", ["unreachable", "down"])
def test_a_dark_region_is_not_shown_as_healthy(desk: Desk, how: str) -> None:
    if how == "down":
        desk.system.cores["us"].down = True
    else:
        desk.system.unreachable.add("us")
    code, rows, err = desk.listed()
    assert code == Exit.NOT_COMPLETE
    assert (rows["us"]["serving"], rows["us"]["state"]) == ([], "in service")
    assert list(rows["us"]["not_serving"]) == ["core-us"]  # type: ignore[call-overload]
    silent, step = map(json.loads, err.splitlines())
    assert silent["core"] == "core-us"
    assert step["hint"].startswith("start the Cores that do not serve")
    code, out, err = desk.run("region", "list", "-o", "table")
    assert (code, "0 of 1" in out) == (Exit.NOT_COMPLETE, True)
    assert "core-us of region us does not serve: no reply: " in err


def test_one_of_several_cores_and_one_without_a_baseline_are_named(desk: Desk) -> None:
    desk.registries.another_core()
    desk.registries.baseline["us"] = False
    code, rows, err = desk.listed()
    assert code == Exit.NOT_COMPLETE
    assert rows["eu"]["serving"] == ["core-eu"]
    *silent, step = map(json.loads, err.splitlines())
    assert "`kcm registry show`" in step["hint"]
    told = {one["core"]: one["error"] for one in silent}
    assert set(told) == {"core-eu-2", "core-us"}
    assert told["core-us"].startswith("no baseline of its registry: ")


def test_nobody_waits_for_a_region_that_is_retired(desk: Desk) -> None:
    desk.run("region", "retire", "us", "--reason", "lost")
    desk.system.unreachable.add("us")
    code, rows, _ = desk.listed()
    assert (code, rows["us"]["state"]) == (Exit.OK, "retired")


def test_a_region_that_the_context_lacks_is_named(desk: Desk) -> None:
    desk.system.forget("us")
    code, rows, _ = desk.listed()
    assert code == Exit.NOT_COMPLETE
    assert rows["us"]["not_serving"] == {"core-us": "on the roster, not in this context"}
