"""What is not a name is said with what a name looks like, before anybody is asked."""

import json
from pathlib import Path

import pytest
from kcm.cli.error_report import explain
from kcm.cli.main import run
from kcm.exit_codes import Exit
from kcm_schemas.registry import Link, Tenant
from pydantic import ValidationError

from tests.unit.operator_rig import Cores, Desk

BAD = "Acme Corp"

COMMANDS = [
    ("kill", BAD),
    ("kill", "--link", BAD),
    ("kill", BAD, "--dry-run"),
    ("tenant", "create", BAD, "--link", "root"),
    ("tenant", "create", "acme", "--link", BAD),
    ("tenant", "relink", BAD, "--link", "root"),
    ("tenant", "relink", "acme", "--link", BAD),
    ("tenant", "show", BAD),
    ("service", "create", BAD, "crm"),
    ("service", "create", "acme", BAD),
    ("service", "list", BAD),
    ("l1", "link", BAD, "softkey:/x"),
    ("encrypt", "-", "--tenant", BAD, "--service", "crm"),
    ("encrypt", "-", "--tenant", "acme", "--service", BAD),
    ("decrypt", "-", "--tenant", BAD, "--service", "crm"),
    ("region", "retire", BAD, "--reason", "x"),
    ("roster", "retire", BAD, "--dry-run"),
    ("dev", "key", BAD),
    ("dev", "up", "--region", BAD),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_name_that_is_none_is_said_with_what_one_looks_like(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    form = ("--format", "json")
    code = run([*command, "--context", str(tmp_path / "none"), *form])
    said = json.loads(capsys.readouterr().err)
    assert (code, said["error"]) == (Exit.USAGE, "malformed")
    assert "'Acme Corp' is not a name" in said["detail"]
    assert "a-z, 0-9 and -" in said["hint"]


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", "", "a" * 64, "a.b", "ä"])
def test_a_root_key_has_no_name_that_leads_elsewhere(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    place = tmp_path / "a" / "dev"
    command = ["dev", "key", name, "--kind", "softkey", "--dir", str(place)]
    assert run([*command, "-o", "json"]) == Exit.USAGE
    assert "is not a name" in json.loads(capsys.readouterr().err)["detail"]
    assert list(tmp_path.iterdir()) == []


def test_a_message_that_cannot_be_made_names_the_value_and_the_bound() -> None:
    with pytest.raises(ValidationError) as caught:
        Tenant(tenant="A b", revision=1, link="root", regions=["eu", "U s"], region_quorum="all")
    report = explain(caught.value)
    assert (report.exit_code, report.code) == (Exit.USAGE, "malformed")
    assert "'A b' is not a name" in report.detail
    assert "'U s' is not a name" in report.detail
    assert "a name has 1 to 63 characters" in report.hint
    with pytest.raises(ValidationError) as caught:
        Link(link="root", revision=1, uri="x" * 3000, model="byok")
    report = explain(caught.value)
    assert report.detail == "uri is too long: 2048 characters at most"


@pytest.mark.parametrize(
    ("command", "place"), [(("kill", "Acme"), "TENANT"), (("l1", "link", "Acme"), "NAME")]
)
def test_an_argument_that_may_be_left_out_is_named_without_brackets(
    capsys: pytest.CaptureFixture[str], command: tuple[str, ...], place: str
) -> None:
    assert run([*command, "-o", "json"]) == Exit.USAGE
    assert json.loads(capsys.readouterr().err)["detail"] == f"'{place}': 'Acme' is not a name"


REASONS = [
    ("lift", "ab", "--reason"),
    ("lift", "--tenant", "acme", "--yes", "--reason"),
    ("region", "retire", "us", "--reason"),
]


@pytest.mark.parametrize("blank", ["", "  \t\n", "\u00a0\u200b"])
@pytest.mark.parametrize("arguments", REASONS, ids=" ".join)
def test_a_reason_that_says_nothing_is_refused_before_any_request(
    desk: Desk, arguments: tuple[str, ...], blank: str
) -> None:
    code, out, err = desk.run(*arguments, blank, "-o", "json")
    assert (code, out) == (Exit.USAGE, "")
    assert json.loads(err)["detail"] == "'--reason': the reason is empty"
    assert not any(core.requests for core in desk.system.cores.values())


def test_a_kill_is_not_refused_for_an_empty_reason(desk: Desk, cores: Cores) -> None:
    """A script with an unset variable must not keep the keys in memory."""
    code, _, err = desk.run("kill", "acme", "--reason", "")
    assert code == Exit.OK, err
    assert cores.held
