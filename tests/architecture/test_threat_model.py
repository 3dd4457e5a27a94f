"""The threat model names tests that exist, every class, and every code without a seal."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from kcm_schemas.session import UNSEALED

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "threat-model.md").read_text()
NAMED = re.compile(r"`(tests/[a-z0-9_/]+\.py)::([a-z0-9_]+|\*)`")


@cache
def names_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(
        one.name
        for one in ast.walk(tree)
        if isinstance(one, functions) and one.name.startswith("test_")
    )


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    part = TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_test_that_it_names_exists() -> None:
    named = NAMED.findall(TEXT)
    assert len(named) > 30
    for path, name in named:
        assert (name in names_in(path)) if name != "*" else names_in(path), f"{path}::{name}"


def test_every_attacker_and_every_class_has_a_test() -> None:
    attackers, classes = (
        rows("Who attacks, and what remains closed"),
        rows("Sixteen classes of vulnerabilities"),
    )
    assert [row[0] for row in classes] == [str(number) for number in range(1, 17)]
    for row in (*attackers, *classes):
        assert NAMED.search(row[-1]), row


def test_the_refusals_before_a_session_are_those_of_the_wire() -> None:
    codes = {row[0].strip("`") for row in rows("Refusals before a session")}
    assert codes == {code.value for code in UNSEALED}
