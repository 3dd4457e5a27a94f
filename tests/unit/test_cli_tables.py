"""Columns of a table that a command encrypts: found, checked and reported."""

import base64
import json
from pathlib import Path

import pytest
from kcm import cell_context
from kcm.exit_codes import Exit
from kcm_schemas.codes import Code

from tests.fakes.client import seal
from tests.unit.table_rig import Desk, said


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.mark.parametrize("fields", ["SSN", "ssn,SSN", "user.nam", "user.name.first", "id.x"])
@pytest.mark.parametrize("command", ["encrypt", "decrypt"])
def test_a_field_that_no_row_has_gives_nothing(
    desk: Desk,
    command: str,
    fields: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = '{"id": 1, "ssn": "078", "user": {"name": "Ada"}}\n' * 3
    if command == "decrypt":
        text = desk.sealed(text, "p.jsonl", "--fields", "ssn").decode()
        capsys.readouterr()
    assert desk.run(command, text, "q.jsonl", "--fields", fields) == (Exit.USAGE, None)
    detail = str(said(capsys)[-1]["detail"])
    assert f"no row has the field {fields.rpartition(',')[2]}" in detail
    assert "id, ssn, user" in detail
    piped = (command, "-", "--as", "jsonl", "--fields", fields)
    assert desk.piped(monkeypatch, text, *piped) == (Exit.USAGE, b"")


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"", "the table is empty"), (b"\na,b\n1,2\n", "line 1 of the table is empty")],
)
def test_a_table_begins_with_the_names_of_its_columns(
    desk: Desk, capsys: pytest.CaptureFixture[str], content: bytes, text: str
) -> None:
    assert desk.run("encrypt", content, "p.csv", "--fields", "a") == (Exit.USAGE, None)
    assert said(capsys)[-1]["detail"] == text


def test_rows_that_lack_a_field_are_counted(
    desk: Desk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '{"a":1}\n\n{"b":"x","a":2}\n{}\n'
    sealed = desk.comes_back(text, "p.jsonl", "--fields", "a,b")
    assert said(capsys)[0] == {
        "good": 3,
        "bad": 0,
        "rows": 3,
        "lacking": {"a": 1, "b": 2},
        "twice": {},
    }
    assert sealed.splitlines()[3] == b"{}"
    piped = ("encrypt", "-", "--as", "jsonl", "--fields", "a,b")
    assert desk.piped(monkeypatch, text, *piped) == (Exit.OK, sealed)


def test_what_waits_for_a_field_has_a_bound(
    desk: Desk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '{"a":1}\n' * 1500 + '{"b":1,"a":1}\n'
    piped = ("encrypt", "-", "--as", "jsonl", "--fields", "a,b")
    monkeypatch.setattr("kcm.cli.row_buffer.HELD_MAX", 1000)
    assert desk.piped(monkeypatch, text, *piped) == (Exit.USAGE, b"")
    assert "-o FILE" in str(said(capsys)[-1]["hint"])
    assert desk.run("encrypt", text, "p.jsonl", "--fields", "a,b")[0] == Exit.OK


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"])
def test_a_table_without_rows_lacks_nothing(desk: Desk, text: str) -> None:
    assert desk.run("encrypt", text, "p.jsonl", "--fields", "a") == (Exit.OK, text.encode())


def test_a_dotted_name_is_a_key_in_an_object(desk: Desk) -> None:
    text = (
        '{"user": {"name": "Ada", "age": 1.10}, "n": 1}\n{"user":null}\n{"n": {"user.name": 2}}\n'
    )
    sealed = desk.comes_back(text, "p.jsonl", "--fields", "user.name")
    assert b"Ada" not in sealed
    first = json.loads(sealed.splitlines()[0])
    expected = seal("eu", "acme", "crm", b'"Ada"', cell_context("user.name"))
    assert base64.b64decode(first["user"]["name"]) == expected
    assert sealed.splitlines()[1:] == text.encode().splitlines()[1:]


def test_a_key_with_a_dot_is_written_with_a_backslash(desk: Desk) -> None:
    text = '{"user.name": "Ada", "a\\\\b": "Grace"}\n'
    sealed = desk.comes_back(text, "p.jsonl", "--fields", r"user\.name,a\\b")
    assert b"Ada" not in sealed
    assert b"Grace" not in sealed


@pytest.mark.parametrize(
    "row",
    [
        '{"user.name": "Ada"}',
        '{"user.name": "Ada", "user": {"name": "Grace"}}',
        '{"\\u0075ser.name": "Ada"}',
    ],
)
def test_an_ambiguous_name_is_refused(
    desk: Desk, row: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f'{{"user": {{"name": "Ada"}}}}\n{row}\n'
    assert desk.run("encrypt", text, "p.jsonl", "--fields", "user.name") == (Exit.USAGE, None)
    assert "row 2 has a key with a dot, written user\\.name" in str(said(capsys)[-1]["detail"])
    sealed = desk.comes_back(text, "p.jsonl", "--fields", r"user.name,user\.name")
    assert b"Ada" not in sealed
    assert b"Grace" not in sealed


def test_a_list_on_the_way_is_a_bad_row(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    text = '{"user": {"name": 1}}\n{"user": [{"name": "Ada"}]}\n'
    code, sealed = desk.run("encrypt", text, "p.jsonl", "--fields", "user.name")
    assert code == Exit.PARTIAL
    assert len((sealed or b"").splitlines()) == 1
    assert "user is a list" in str(said(capsys)[0]["detail"])


@pytest.mark.parametrize(
    "more",
    [
        ("--fields", "a..b"),
        ("--fields", "a."),
        ("--fields", r"a\b"),
        ("--fields", "a,a.b"),
        ("--fields", "a.b", "--bind", "a"),
        ("--fields", "a", "--bind", "a"),
        ("--fields", "a", "--bind", "b,b"),
        ("--fields", "a", "--delimiter", ";"),
        ("--fields", ""),
        ("--fields", "a", "--record"),
        ("--fields", "a\udcff"),
        ("--bind", "a"),
        ("--as", "jsonl"),
        ("--delimiter", ","),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(desk: Desk, more: tuple[str, ...]) -> None:
    assert desk.run("encrypt", '{"a": {"b": 1}}\n', "p.jsonl", *more) == (Exit.USAGE, None)


def test_an_error_lists_the_columns(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    for more in (("--fields", "Name"), ("--fields", "name", "--bind", "Name")):
        assert desk.run("encrypt", "id,name\n1,Ada\n", "p.csv", *more) == (Exit.USAGE, None)
        assert "no column Name; the columns are: id, name" in str(said(capsys)[-1]["detail"])
    wide = ",".join(f"c{number}" for number in range(30))
    assert desk.run("encrypt", wide, "p.csv", "--fields", "x") == (Exit.USAGE, None)
    assert str(said(capsys)[-1]["detail"]).endswith("c19, and 10 more")
    assert desk.run("encrypt", "id;name\n", "p.csv", "--fields", "name") == (Exit.USAGE, None)
    assert "--delimiter" in str(said(capsys)[-1]["hint"])


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        (Code.TENANT_KILLED, Exit.REFUSED),
        (Code.FORBIDDEN, Exit.REFUSED),
        (Code.KEY_DESTROYED, Exit.REFUSED),
        (Code.MALFORMED, Exit.REFUSED),
        (Code.UNAVAILABLE, Exit.UNAVAILABLE),
    ],
)
def test_a_refusal_of_all_writes_no_empty_cells(desk: Desk, code: Code, exit_code: Exit) -> None:
    for row in range(1024, 2048):
        desk.gateway.refuse[f"n{row}".encode()] = code
    text = "id,name\n" + "".join(f"{row},n{row}\n" for row in range(3000))
    assert desk.run("encrypt", text, "p.csv", "--fields", "name") == (exit_code, None)


def test_when_no_row_is_understood_there_is_no_file(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert desk.run("encrypt", "a,b\n1\n", "p.csv", "--fields", "a") == (Exit.USAGE, None)
    assert "row 2: it has 1 column," in str(said(capsys)[-1]["detail"])
    assert desk.run("decrypt", "a,b\n?,1\n", "p.csv", "--fields", "a") == (Exit.USAGE, None)
    assert "not a record in base64" in str(said(capsys)[-1]["detail"])
