"""Columns of tables: the rest stays, bad cells are told, and no plaintext slips through."""

import base64
import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kcm import cell_context
from kcm.cli.main import run
from kcm.exit_codes import Exit
from kcm_schemas.codes import Code

from tests.fakes.client import FakeSystem, seal

CSV = 'id,name,ssn\r\n1,"Ada, L",123\r\n2,"Gr""ace",\r\n3,Hedy,777\r\n'


class Desk:
    def __init__(self, directory: Path) -> None:
        self.system = FakeSystem(directory)
        self.directory = directory
        self.gateway = self.system.gateways["eu"]

    def run(self, command: str, name: str, *more: str) -> tuple[int, bytes | None]:
        out = self.directory / f"out-{name}"
        out.unlink(missing_ok=True)
        code = run(
            [
                *(command, str(self.directory / name), "-o", str(out), "--format", "json"),
                *("--tenant", "acme", "--service", "crm", "--fields", "name,ssn"),
                *("--context", str(self.system.context_file), *more),
            ],
            self.system.open,
            self.system.clock.around(),
        )
        return code, out.read_bytes() if out.exists() else None

    def write(self, name: str, content: bytes | str) -> str:
        data = content.encode() if isinstance(content, str) else content
        (self.directory / name).write_bytes(data)
        return name


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def rows(data: bytes | None) -> list[list[str]]:
    assert data is not None
    return list(csv.reader(io.StringIO(data.decode(), newline="")))


def told(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_csv_comes_back(desk: Desk) -> None:
    code, sealed = desk.run("encrypt", desk.write("p.csv", CSV))
    assert code == Exit.OK
    table = rows(sealed)
    assert table[0] == ["id", "name", "ssn"]
    assert [row[0] for row in table[1:]] == ["1", "2", "3"]
    expected = seal("eu", "acme", "crm", b"Ada, L", cell_context("name"))
    assert base64.b64decode(table[1][1]) == expected
    assert desk.run("decrypt", desk.write("q.csv", sealed or b"")) == (Exit.OK, CSV.encode())


def test_json_lines_come_back_with_their_types(desk: Desk) -> None:
    lines = [
        {"id": 1, "name": "Ada", "ssn": 123},
        {"id": 2, "name": None, "more": [1, {"x": "\ud800"}]},
        {"id": 3, "ssn": {"a": [True, 1.5, "é"]}},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines) + "\n"
    code, sealed = desk.run("encrypt", desk.write("p.jsonl", text))
    assert code == Exit.OK
    assert sealed is not None
    assert b"Ada" not in sealed
    assert b"123" not in sealed
    code, plain = desk.run("decrypt", desk.write("q.jsonl", sealed))
    assert code == Exit.OK
    assert plain is not None
    assert [json.loads(line) for line in plain.splitlines() if line] == lines


def test_bad_cells_are_told_and_the_rest_goes_on(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    _, sealed = desk.run("encrypt", desk.write("p.csv", CSV))
    table = rows(sealed)
    table[1][1], table[1][2] = table[1][2], table[1][1]  # columns swapped
    table[3][2] = "not base64!"
    out = io.StringIO()
    csv.writer(out).writerows(table)
    capsys.readouterr()
    code, plain = desk.run("decrypt", desk.write("q.csv", out.getvalue()))
    assert code == Exit.PARTIAL
    found = rows(plain)
    assert found[1] == table[1]
    assert found[2] == ["2", 'Gr"ace', ""]
    assert found[3] == ["3", "Hedy", "not base64!"]
    *bad, total = told(capsys)
    assert [(cell["row"], cell["field"], cell["error"]) for cell in bad] == [
        (2, "name", "tampered"),
        (2, "ssn", "tampered"),
        (4, "ssn", "malformed"),
    ]
    assert "--context-bytes as at encryption" in total.pop("hint")
    assert total == {"good": 3, "bad": 3, "rows": 3, "lacking": {}, "twice": {}}


def test_no_plaintext_is_left_when_encrypting_fails(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.gateway.refuse[b"123"] = Code.TOO_LARGE
    text = CSV + "4,Secret,Person,extra\r\n5,Mallory\r\n"
    code, sealed = desk.run("encrypt", desk.write("p.csv", text))
    assert code == Exit.PARTIAL
    assert rows(sealed)[1][2] == ""
    assert len(rows(sealed)) == 4
    for plain in (b"123", b"Secret", b"Person", b"Mallory"):
        assert plain not in (sealed or b"")
    *bad, total = told(capsys)
    assert [cell["row"] for cell in bad] == [2, 5, 6]
    assert total["hint"].startswith("correct these rows")


def test_lines_that_are_no_objects_are_left_out_of_what_is_encrypted(desk: Desk) -> None:
    text = '{"name": "Ada", "ssn": 1}\n["secret"]\nsecret\n{"name": "a", "name": "secret"}\n'
    code, sealed = desk.run("encrypt", desk.write("p.jsonl", text))
    assert code == Exit.PARTIAL
    assert sealed is not None
    assert b"secret" not in sealed
    assert len(sealed.splitlines()) == 1
    code, plain = desk.run("decrypt", desk.write("q.jsonl", sealed + b'["as it was"]\n'))
    assert code == Exit.PARTIAL
    assert plain == b'{"name": "Ada", "ssn": 1}\n["as it was"]\n'


def test_a_killed_tenant_ends_the_work(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.gateway.refuse[b"777"] = Code.TENANT_KILLED
    assert desk.run("encrypt", desk.write("p.csv", CSV)) == (Exit.REFUSED, None)
    assert told(capsys)[-1]["error"] == "tenant_killed"


def test_when_nothing_is_good_there_is_no_file(desk: Desk) -> None:
    _, sealed = desk.run("encrypt", desk.write("p.csv", CSV))
    name = desk.write("q.csv", sealed or b"")
    assert desk.run("decrypt", name, "--context-bytes", "x") == (Exit.REFUSED, None)
    assert desk.run("decrypt", name, "--region", "us") == (Exit.REFUSED, None)


@pytest.mark.parametrize(
    ("name", "content", "more"),
    [
        ("p.csv", "id,name\n1,2\n", ()),
        ("p.csv", "name,name,ssn\n1,2,3\n", ()),
        ("p.csv", "", ()),
        ("p.csv", 'name,ssn\n"open,1\n', ()),
        ("p.txt", CSV, ()),
        ("p.csv", CSV, ("--fields", "name,name")),
        ("p.csv", CSV, ("--fields", ",")),
        ("p.csv", CSV, ("--fields", "x" * 256)),
    ],
)
def test_what_is_not_such_a_table_is_wrong_usage(
    desk: Desk, name: str, content: str, more: tuple[str, ...]
) -> None:
    assert desk.run("encrypt", desk.write(name, content), *more) == (Exit.USAGE, None)


def test_bytes_that_are_not_utf8_and_a_mark_of_order_pass_through(desk: Desk) -> None:
    text = b"\xef\xbb\xbfname,ssn,x\nAd\xe4,1,\xff\n\n"
    code, sealed = desk.run("encrypt", desk.write("p.csv", text))
    assert code == Exit.OK
    assert desk.run("decrypt", desk.write("q.csv", sealed or b"")) == (Exit.OK, text)


def test_a_long_table_goes_in_batches(desk: Desk) -> None:
    text = "name,ssn\n" + "".join(f"n{n},{n}\n" for n in range(3000))
    code, sealed = desk.run("encrypt", desk.write("p.csv", text))
    assert code == Exit.OK
    assert max(desk.gateway.sizes) == 1024
    assert len(desk.gateway.sizes) == 6
    assert desk.run("decrypt", desk.write("q.csv", sealed or b"")) == (Exit.OK, text.encode())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    table=st.lists(
        st.tuples(*[st.text(st.characters(exclude_categories=["Cs"]), max_size=8)] * 3),
        max_size=6,
    )
)
def test_any_csv_keeps_its_values(desk: Desk, table: list[tuple[str, str, str]]) -> None:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([("id", "name", "ssn"), *table])
    code, sealed = desk.run("encrypt", desk.write("p.csv", out.getvalue()))
    assert code == Exit.OK
    code, plain = desk.run("decrypt", desk.write("q.csv", sealed or b""))
    assert code == Exit.OK
    assert plain == out.getvalue().encode()


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl"])
def test_a_table_says_whose_its_cells_are(
    desk: Desk, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.dumps({"id": 1, "name": "Ada", "ssn": index}) + "\n" for index in range(2)]
    desk.write(name, CSV if name.endswith("csv") else "".join(lines))
    assert desk.run("encrypt", name)[0] == Exit.OK
    capsys.readouterr()
    path = str(desk.directory / f"out-{name}")
    assert run(["inspect", path, "-o", "json"]) == Exit.OK
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["cells"] == (6 if name.endswith("csv") else 4)
    assert (shown["region"], shown["tenant"], shown["service"]) == ("eu", "acme", "crm")
    assert run(["inspect", path, "-o", "table"]) == Exit.OK
    assert run(["inspect", str(desk.directory / name)]) == Exit.CHECK_FAILED


def test_a_table_without_fields_is_told_to_name_them(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(desk.directory / desk.write("p.csv", CSV))
    who = ["--tenant", "acme", "--service", "crm", "--context", str(desk.system.context_file)]
    code = run(["decrypt", path, *who], desk.system.open, desk.system.clock.around())
    assert code == Exit.CHECK_FAILED
    assert "--fields" in str(told(capsys)[-1]["hint"])


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl"])
def test_what_is_encrypted_twice_is_counted(
    desk: Desk, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = CSV if name.endswith("csv") else '{"name":"Ada","ssn":1}\n'
    _, once = desk.run("encrypt", desk.write(name, plain), "--fields", "name")
    desk.write(name, once or b"")
    capsys.readouterr()
    code, both = desk.run("encrypt", name)
    assert code == Exit.OK
    assert told(capsys)[-1]["twice"] == {"name": 3 if name.endswith("csv") else 1}
    _, back = desk.run("decrypt", desk.write(name, both or b""))
    assert back == once
    code, last = desk.run("decrypt", desk.write(name, back or b""), "--fields", "name")
    assert (code, last) == (Exit.OK, plain.encode())


@pytest.mark.parametrize(
    ("name", "content", "fields", "said"),
    [
        ("p.csv", "id, name ,x\n1,2,3\n", " name ", "'\" name \"'"),
        ("p.csv", "id, name ,x\n1,2,3\n", "name", "'\" name \"'"),
        ("p.csv", "id,name\n1,2\n".encode("utf-16"), "name", "not UTF-8"),
        ("p.csv", "id,name\n1,2\n".encode("utf-16-be"), "name", "not UTF-8"),
        ("p.jsonl", '{"name":' + "[" * 100_000 + "]" * 100_000 + "}\n", "name", "nested too"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(
    desk: Desk,
    name: str,
    content: str | bytes,
    fields: str,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert desk.run("encrypt", desk.write(name, content), "--fields", fields)[0] == Exit.USAGE
    assert any(said in f"{one['detail']} {one.get('hint', '')}" for one in told(capsys))


def test_a_name_with_spaces_around_it_stands_in_quotation_marks(desk: Desk) -> None:
    desk.write("p.csv", "id, name ,x\n1,2,3\n")
    assert desk.run("encrypt", "p.csv", "--fields", '" name "')[0] == Exit.OK
