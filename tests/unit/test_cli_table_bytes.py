"""CSV and JSON lines: the bytes of each cell come back."""

import base64
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kcm import cell_context
from kcm.exit_codes import Exit

from tests.fakes.client import seal
from tests.unit.table_rig import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


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
