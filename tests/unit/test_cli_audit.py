"""`kcm audit status` and `kcm audit verify`."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from kcm.cli.audit import _ended
from kcm.cli.main import run
from kcm.cli.settings import Settings, World
from kcm.exit_codes import Exit
from kcm_schemas.auditor import AuditorStatus, FollowedRegion

from tests.fakes.client import NOW_MS
from tests.unit.operator_rig import Desk


@pytest.fixture
def settings() -> Settings:
    return Settings(json=True, context_file=None, world=World())


def followed(**changes: int) -> FollowedRegion:
    fields: dict[str, object] = {
        "region": "eu", "reachable": True, "position": 900, "first": 513, "used": 10 << 20,
        "room": 100 << 20, "signed": 896, "trimmed": 512, "witnesses": 2, "lost_first": 0,
        "lost_last": 0,
    }  # fmt: skip
    return FollowedRegion.model_validate({**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "said", "warned", "code"),
    [
        ({}, "512 (2 have it)", "", Exit.OK),
        ({"used": 70 << 20}, "70 % of 100 MiB", "stream fills", Exit.OK),
        ({"used": 90 << 20}, "90 % of 100 MiB", "data requests are refused", Exit.OK),
        ({"room": 0}, "no bound", "room of the control stream", Exit.OK),
        (
            {"lost_first": 3, "lost_last": 9},
            "entries lost",
            "messages 3 to 9 were trimmed",
            Exit.CHECK_FAILED,
        ),
    ],
)
def test_the_state_of_audit_streams(
    desk: Desk, changes: dict[str, int], said: str, warned: str, code: Exit
) -> None:
    status = AuditorStatus(
        auditor="auditor-eu",
        time_ms=NOW_MS,
        seq=1,
        head=bytes(32),
        events=1,
        incidents=0,
        segment=1,
        regions=[followed(**changes)],
        emitters=[],
    )
    desk.system.everywhere("auditor", "status", lambda request, operator: status)
    done, out, err = desk.run("audit", "status", "-o", "table")
    assert done == code
    assert said in out
    assert warned in err
    assert bool(err) is bool(warned)
    shown = json.loads(desk.run("audit", "status", "-o", "json")[1])
    assert shown["regions"][0]["signed"] == 896


def test_verifying_a_directory_that_is_no_journal_is_no_success(desk: Desk, tmp_path: Path) -> None:
    assert desk.run("audit", "verify", str(tmp_path / "none"))[0] == Exit.USAGE


@pytest.mark.parametrize("form", [(), ("-o", "json")], ids=["default", "json"])
def test_what_a_journal_holds_is_json_without_a_terminal(
    tmp_path: Path, form: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["audit", "verify", str(tmp_path), *form]) == Exit.CHECK_FAILED
    out, err = capfd.readouterr()
    said = json.loads(out)
    assert "docs/audit.md" in json.loads(err)["hint"]
    assert (said["sound"], said["entries"], said["signatures_checked"]) == (False, 0, False)
    assert said["head"] == f"0:{'0' * 64}"
    assert "no segment" in said["problems"][0]
    assert run(["audit", "verify", str(tmp_path), "-o", "table"]) == Exit.CHECK_FAILED
    assert capfd.readouterr().out.endswith("NOT SOUND\n")


def test_what_the_check_says_beside_its_result_is_in_the_same_form(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _ended(settings, 1, "2026-01-01 ERROR the disk\x1b is odd\n") == Exit.CHECK_FAILED
    assert json.loads(capfd.readouterr().err) == {"detail": "the disk\x1b is odd"}
    assert _ended(replace(settings, json=False), 0, "WARNING old\x1b\n") == Exit.OK
    assert capfd.readouterr().err == "WARNING old\ufffd\n"


@pytest.mark.parametrize("anchor", ["5:zz", "nonsense", f"-1:{'a' * 64}", f"5:{'a' * 63}", ""])
def test_an_anchor_that_is_none_is_said_as_every_error(
    tmp_path: Path, anchor: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code = run(["audit", "verify", str(tmp_path), "--anchor", anchor, "-o", "table"])
    err = capfd.readouterr().err
    assert code == Exit.USAGE
    assert err.startswith("error: --anchor takes")
    assert "hint: " in err
