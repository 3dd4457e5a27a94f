"""Every function that CONTRIBUTING.md names under "Where is what" exists."""

import pkgutil
import re
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECTION = re.search(
    r"^## Where is what\n(.*?)(?=^## |\Z)",
    (ROOT / "CONTRIBUTING.md").read_text(),
    re.DOTALL | re.MULTILINE,
)
assert SECTION is not None
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in SECTION[1].splitlines()
    if line.startswith("| ")
][1:]
NAMES = re.findall(r"`(kcm[\w.]*)`", SECTION[1])


def test_the_section_answers_the_common_questions():
    questions = " ".join(question for question, _, _ in ROWS).lower()
    for word in ("receipts sent", "lease renewed", "disables a key", "provider"):
        assert word in questions


@pytest.mark.parametrize("name", NAMES)
def test_what_is_named_exists(name):
    pkgutil.resolve_name(name)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_every_answer_names_a_function_or_a_protocol(row):
    names = re.findall(r"`([\w.]+)`", row[1])
    assert names
    for found in map(pkgutil.resolve_name, names):
        assert isinstance(found, types.FunctionType) or found.__name__ == "L1Provider"
