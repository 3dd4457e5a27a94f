"""Cells that are bound to their row."""

import base64
import json
from pathlib import Path

import pytest
from kcm import cell_context
from kcm.exit_codes import Exit

from tests.fakes.client import seal
from tests.unit.table_rig import Desk, said


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl"])
def test_bound_cells_open_in_their_row_only(
    desk: Desk, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [("1", "Ada"), ("2", "Grace"), ("3", "Hedy")]

    def table(rows: list[tuple[str, str]]) -> str:
        if name == "p.csv":
            return "id,name,x\n" + "".join(f"{key},{value},0\n" for key, value in rows)
        return "".join(f'{{"id":{key},"name":"{value}"}}\n' for key, value in rows)

    more = ("--fields", "name", "--bind", "id")
    sealed = desk.comes_back(table(rows), name, *more)
    if name == "p.csv":
        cells = [(row.split(",")[0], row.split(",")[1]) for row in sealed.decode().split("\n")[1:4]]
    else:
        cells = [(str(row["id"]), row["name"]) for row in map(json.loads, sealed.splitlines())]
    context = cell_context("name", bound={"id": b"1"})
    expected = seal("eu", "acme", "crm", b"Ada" if name == "p.csv" else b'"Ada"', context)
    assert base64.b64decode(cells[0][1]) == expected
    swapped = [(cells[0][0], cells[1][1]), (cells[1][0], cells[0][1]), cells[2]]
    capsys.readouterr()
    code, plain = desk.run("decrypt", table(swapped), name, *more)
    assert (code, plain) == (Exit.PARTIAL, table([*swapped[:2], rows[2]]).encode())
    assert [cell["error"] for cell in said(capsys)[:-1]] == ["tampered", "tampered"]
    renumbered = [(f"{key}0", value) for key, value in cells]
    assert desk.run("decrypt", table(renumbered), name, *more) == (Exit.REFUSED, None)
    assert "--bind" in str(said(capsys)[-1]["hint"])
    assert desk.run("decrypt", sealed, name, "--fields", "name") == (Exit.REFUSED, None)
    # Without --bind a cell is its column's alone, as the documents say.
    loose = desk.sealed(table(rows), name, "--fields", "name")
    first, *_ = table(rows).split("\n")
    assert first.encode() in loose or name == "p.jsonl"


def test_a_row_without_its_bound_column_is_bad(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--fields", "name", "--bind", "key.id,x")
    text = '{"key":{"id":1},"x":2,"name":"Ada"}\n{"key":{},"x":1,"name":"Grace"}\n'
    code, sealed = desk.run("encrypt", text, "p.jsonl", *more)
    assert (code, len((sealed or b"").splitlines())) == (Exit.PARTIAL, 1)
    assert "no key.id" in str(said(capsys)[0]["detail"])
    text = '{"name":"Ada"}\n'
    assert desk.run("encrypt", text, "p.jsonl", *more) == (Exit.USAGE, None)
    assert "no key.id" in str(said(capsys)[-1]["detail"])


def test_bound_values_never_share_a_context() -> None:
    contexts = {
        cell_context("f", user, bound)
        for user in (b"", b"u")
        for bound in (
            {},
            {"a": b""},
            {"a": b"b"},
            {"ab": b""},
            {"a": b"", "b": b""},
            {"a": b"b", "b": b"a"},
            {"a": b"a", "b": b"b"},
        )
    }
    assert len(contexts) == 14
    one = cell_context("f", b"", {"a": b"1", "b": b"2"})
    assert one == cell_context("f", b"", {"b": b"2", "a": b"1"})
