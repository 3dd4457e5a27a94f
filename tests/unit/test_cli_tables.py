"""What is not a chosen cell stays byte for byte, and a chosen cell that is not there is said."""

import base64
import io
import json
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kcm._internal.context_binding import cell_context
from kcm.cli.main import run
from kcm.exit_codes import Exit
from kcm_schemas.codes import Code

from tests.fakes.client import FakeSystem, seal


class Desk:
    """A directory with a system, and the two commands on tables."""

    def __init__(self, directory: Path) -> None:
        self.system = FakeSystem(directory)
        self.directory = directory
        self.gateway = self.system.gateways["eu"]

    def command(self, *arguments: str) -> int:
        who = ("--tenant", "acme", "--service", "crm", "--context", str(self.system.context_file))
        around = self.system.clock.around()
        return run([*arguments, *who, "--format", "json"], self.system.open, around)

    def run(
        self, command: str, content: bytes | str, name: str, *more: str
    ) -> tuple[int, bytes | None]:
        data = content.encode() if isinstance(content, str) else content
        given, out = self.directory / name, self.directory / f"out-{name}"
        given.write_bytes(data)
        out.unlink(missing_ok=True)
        code = self.command(command, str(given), "-o", str(out), *more)
        return code, out.read_bytes() if out.exists() else None

    def sealed(self, content: bytes | str, name: str, *more: str) -> bytes:
        code, sealed = self.run("encrypt", content, name, *more)
        assert (code, sealed is not None) == (Exit.OK, True)
        return sealed or b""

    def comes_back(self, content: bytes | str, name: str, *more: str) -> bytes:
        """Encrypt and decrypt; the result is what it was, byte for byte. Returns the middle."""
        sealed = self.sealed(content, name, *more)
        data = content.encode() if isinstance(content, str) else content
        assert self.run("decrypt", sealed, name, *more) == (Exit.OK, data)
        return sealed

    def piped(
        self, monkeypatch: pytest.MonkeyPatch, content: str, *arguments: str
    ) -> tuple[int, bytes]:
        out = io.BytesIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
            patch.setattr(sys, "stdout", io.TextIOWrapper(out))
            code = self.command(*arguments)
            return code, out.getvalue()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def said(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


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


ODD = [
    b'{"n": 12345678901234567.89, "s" : "x",  "e":1e400,"m":1.10 }\r\n',
    b'\t{"z":1,"s":"\\u00e9\\/\\ud800","a":[1 , 2.50,{"k":-0.0}]}  \n',
    b'{"s":1.10}\n',
    b'{"s":12345678901234567.89,"k":NaN}\n',
    b'{"s": { "a" : 1e400 , "b":[ ] } }\n',
    b'{"s":"\xc3\xa9"}\n',
    b"\n   \n",
    b'{"s":' + b"9" * 5000 + b"}",
]


def test_json_values_keep_their_bytes(desk: Desk) -> None:
    sealed = desk.comes_back(b"\xef\xbb\xbf" + b"".join(ODD), "p.jsonl", "--fields", "s")
    lines = sealed.splitlines(keepends=True)
    assert lines[0].startswith(b'\xef\xbb\xbf{"n": 12345678901234567.89, "s" : "')
    assert lines[0].endswith(b'",  "e":1e400,"m":1.10 }\r\n')
    payload = json.loads(lines[2])["s"]
    expected = seal("eu", "acme", "crm", b"1.10", cell_context("s"))
    assert base64.b64decode(payload) == expected


@pytest.mark.parametrize(
    "line",
    [
        b'{"s":1,"s":2}',
        b'{"s":{"a":1,"a":2}}',
        b'{"s":1,"t":{"a":1,"a":2}}',
        b'{"s":1} {"s":2}',
        b'{"s":1,}',
        b'{"s" 1}',
        b'{1:2,"s":1}',
        b'{"s":"\xff"}',
        b'{"s":1',
        b'{"s":' + b"[" * 100_000,
    ],
)
def test_what_is_not_clear_json_is_a_bad_row(desk: Desk, line: bytes) -> None:
    good = b'{"s":"good"}\n'
    code, sealed = desk.run("encrypt", good + line + b"\n", "p.jsonl", "--fields", "s")
    assert code == Exit.PARTIAL
    sealed = sealed or b""
    assert len(sealed.splitlines()) == 1
    code, plain = desk.run("decrypt", sealed + line + b"\n", "p.jsonl", "--fields", "s")
    assert (code, plain) == (Exit.PARTIAL, good + line + b"\n")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    table=st.lists(
        st.tuples(st.dictionaries(st.text(max_size=3), JSON, max_size=3), JSON, st.booleans()),
        max_size=5,
    )
)
def test_any_json_comes_back(
    desk: Desk, table: list[tuple[dict[str, object], object, bool]]
) -> None:
    lines = [
        json.dumps({**more, "user": {"x": value}}, ensure_ascii=ascii_only) + "\n"
        for more, value, ascii_only in table
    ]
    desk.comes_back("".join(lines), "p.jsonl", "--fields", "user.x")


@pytest.mark.parametrize("value", [b"", b"x", b'"a\nb"', b"1\n2", b"1 2", b"\xff", b"[" * 100_000])
def test_a_plaintext_that_is_no_value_stays_encrypted(desk: Desk, value: bytes) -> None:
    record = seal("eu", "acme", "crm", value, cell_context("s"))
    good = seal("eu", "acme", "crm", b" 1 ", cell_context("s"))
    lines = [b'{"s":"' + base64.b64encode(one) + b'"}\n' for one in (record, good)]
    code, plain = desk.run("decrypt", b"".join(lines), "p.jsonl", "--fields", "s")
    assert (code, plain) == (Exit.PARTIAL, lines[0] + b'{"s": 1 }\n')


def test_csv_cells_keep_their_bytes(desk: Desk) -> None:
    text = (
        b'\xef\xbb\xbf"id",name,"a,b"\r\n'
        b'"1","Ada",x\n'
        b'2,"Gr""a\r\nce, L",\r\n'
        b"\r\n"
        b'3,,"\xff"\r'
        b'4,"",x"y'
    )
    sealed = desk.comes_back(text, "p.csv", "--fields", "id,name")
    assert sealed.startswith(b'\xef\xbb\xbf"id",name,"a,b"\r\n"')
    assert sealed.endswith(b',x"y')
    assert b"Ada" not in sealed
    desk.comes_back(text.replace(b'x"y', b'"x""y"'), "p.csv", "--fields", '"a,b"')
    desk.comes_back('x\n"a"\n\n""\nb', "p.csv", "--fields", "x")


def test_quotes_are_made_where_the_text_needs_them(desk: Desk) -> None:
    text = "a,b\n" + "".join(
        f"{base64.b64encode(seal('eu', 'acme', 'crm', value, cell_context('a'))).decode()},2\n"
        for value in (b"x,y", b'x"y', b"x\ry", b"x\ny", b"")
    )
    code, plain = desk.run("decrypt", text, "p.csv", "--fields", "a")
    assert code == Exit.OK
    assert plain == b'a,b\n"x,y",2\n"x""y",2\n"x\ry",2\n"x\ny",2\n,2\n'


def test_an_error_lists_the_columns(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    for more in (("--fields", "Name"), ("--fields", "name", "--bind", "Name")):
        assert desk.run("encrypt", "id,name\n1,Ada\n", "p.csv", *more) == (Exit.USAGE, None)
        assert "no column Name; the columns are: id, name" in str(said(capsys)[-1]["detail"])
    wide = ",".join(f"c{number}" for number in range(30))
    assert desk.run("encrypt", wide, "p.csv", "--fields", "x") == (Exit.USAGE, None)
    assert str(said(capsys)[-1]["detail"]).endswith("c19, and 10 more")
    assert desk.run("encrypt", "id;name\n", "p.csv", "--fields", "name") == (Exit.USAGE, None)
    assert "--delimiter" in str(said(capsys)[-1]["hint"])


def test_a_row_that_is_too_long_is_refused_and_not_cut(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("csv_format", "jsonl_format"):
        monkeypatch.setattr(f"kcm.cli.{module}.LINE_MAX", 100)
    for text in ("a,b\n1,2\n" + "x" * 101 + ",y\n", 'a,b\n"' + "x\n" * 60 + '",2\n'):
        assert desk.run("encrypt", text, "p.csv", "--fields", "a") == (Exit.USAGE, None)
    text = '{"a": "' + "x" * 100 + '"}\n'
    assert desk.run("encrypt", text, "p.jsonl", "--fields", "a") == (Exit.USAGE, None)


@pytest.mark.parametrize(
    ("name", "delimiter", "more"),
    [
        ("p.tsv", "\t", ()),
        ("p.tab", "\t", ()),
        ("p.txt", "\t", ("--as", "tsv")),
        ("p.csv", ";", ("--delimiter", ";")),
        ("p.csv", "\t", ("--delimiter", "\\t")),
        ("p.csv", "|", ("--delimiter", "|")),
        ("p.csv", "^", ("--delimiter", "^")),
    ],
)
def test_other_separators(desk: Desk, name: str, delimiter: str, more: tuple[str, ...]) -> None:
    rows = (("id", "name"), ("1", "A,d"), ("2", f'"x{delimiter}""y"'), ("3", ""))
    text = "".join(delimiter.join(row) + "\n" for row in rows)
    sealed = desk.comes_back(text, name, "--fields", "name", *more)
    assert b"A,d" not in sealed
    assert sealed.startswith(text.splitlines(keepends=True)[0].encode() + b"1" + delimiter.encode())


@pytest.mark.parametrize("delimiter", ["", '"', "\n", ",,", "tab", "=", "a"])
def test_a_separator_is_one_character(desk: Desk, delimiter: str) -> None:
    more = ("--fields", "a", "--delimiter", delimiter)
    assert desk.run("encrypt", "a,b\n1,2\n", "p.csv", *more) == (Exit.USAGE, None)


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
    assert "row 2: it has 1 columns" in str(said(capsys)[-1]["detail"])
    assert desk.run("decrypt", "a,b\n?,1\n", "p.csv", "--fields", "a") == (Exit.USAGE, None)
    assert "not a record in base64" in str(said(capsys)[-1]["detail"])
