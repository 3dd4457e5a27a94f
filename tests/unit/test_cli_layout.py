"""Tables on a narrow terminal: nothing that is copied is cut in two."""

import io

from hypothesis import given
from hypothesis import strategies as st
from kcm.cli.table_layout import laid_out
from rich.console import Console

HOLD = "8a76d7371234abcd"
COLUMNS = ("hold", "on", "cause", "since (UTC)", "reason")
ROW = (HOLD, "tenant acme-industries", "operator", "2026-03-01 12:00:00")


def shown(columns: tuple[str, ...], rows: list[tuple[object, ...]], width: int = 80) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=width)
    console.print(laid_out(columns, rows, console.width))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_what_fits_is_a_table_as_wide_as_its_text() -> None:
    lines = shown(("link", "model"), [("acme-root", "byok")])
    assert any(line.split() == ["acme-root", "byok"] for line in lines)


def test_texts_wrap_at_spaces_and_ids_and_moments_do_not() -> None:
    lines = shown(COLUMNS, [(*ROW, "ended by letter")], width=90)
    assert any(HOLD in line and "2026-03-01 12:00:00" in line for line in lines)
    assert " ".join(lines).split().count("letter") == 1


def test_what_does_not_fit_is_shown_as_blocks() -> None:
    uri = "awskms:arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab"
    lines = shown(("link", "region", "uri"), [("acme-root", "eu-de", uri)] * 2)
    assert [line.split() for line in lines if line].count(["uri", uri]) == 2
    assert lines.count("") == 2


def test_names_and_what_they_stand_for_do_not_repeat_the_header() -> None:
    lines = shown(("property", "value"), [("kind", "record"), ("wrapped_key", "ab" * 60)])
    assert [line.split()[0] for line in lines[:3]] == ["property", "kind", "wrapped_key"]
    assert "\n".join(lines).count("property") == 1


def test_a_list_of_nothing_says_so() -> None:
    assert shown(("hold", "on"), []) == ["none"]


def test_a_text_does_not_steer_the_terminal() -> None:
    for width in (20, 80):
        assert "\x1b" not in "".join(shown(("a", "b"), [("\x1b[31mred", "[bold]x")], width))
        assert "[bold]x" in "".join(shown(("a", "b"), [("\x1b[31mred", "[bold]x")], width))


WORD = st.text("abc-0123", min_size=1, max_size=30)
CELL = st.lists(WORD, min_size=1, max_size=4).map(" ".join)


@given(st.lists(st.tuples(CELL, CELL, CELL), max_size=4), st.integers(40, 160))
def test_no_word_is_cut_and_no_line_too_long(rows: list[tuple[str, str, str]], width: int) -> None:
    lines = shown(("one", "two", "three"), list(rows), width)
    assert all(len(line) <= width for line in lines)
    words = " ".join(lines).split()
    for word in {word for row in rows for cell in row for word in cell.split()}:
        assert word in words
