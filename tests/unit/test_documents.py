"""Every command line in a document is one that the command takes, with its options."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.unit.command_lines import QUOTED, NoCommandError, check, found, tree

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for place in ("*.md", "docs/**/*.md", "deploy/**/*.md", "examples/**/*.md", "services/**/*.md")
    for path in ROOT.glob(place)
    if path.name != "CHANGELOG.md"
)
FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"(?:^|[\s;&|({])kcm ")
ENDS = {"|", "||", "&&", ";", ";;", "&", ")", "(", ">", ">>", "<", "2>", "then", "do", "fi", "done"}
"""What ends a command's words in a shell."""


def lines(text: str) -> Iterator[list[str]]:
    """Every `kcm` command of a shell's text, as its words; a nested one by itself, too."""
    text = text.replace("\\\n", " ")
    for nested in re.findall(r"\$\(([^()]*)\)", text):
        yield from lines(nested)
    text = re.sub(r"\$\([^()]*\)", "x", text)
    for line in filter(COMMAND.search, text.splitlines()):
        reader = shlex.shlex(line, posix=True, punctuation_chars=True)
        reader.whitespace_split = True
        words = list(reader)
        while "kcm" in words:
            words = words[words.index("kcm") + 1 :]
            end = next((at for at, word in enumerate(words) if word in ENDS), len(words))
            given = words[:end]
            # A redirection takes the number of its stream with it.
            if given and end < len(words) and words[end][0] in "<>" and given[-1].isdigit():
                given = given[:-1]
            yield given


def fenced(path: Path) -> list[list[str]]:
    return [
        words
        for kind, text in FENCED.findall(path.read_text())
        if kind in {"", "sh", "bash", "console", "shell"}
        for words in lines(text)
    ]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_line_of_a_document_is_one(path: Path) -> None:
    for words in fenced(path):
        check(words)
    for line in QUOTED.findall(path.read_text()):
        mention(shlex.split(line))


def mention(words: list[str]) -> None:
    """A command that a sentence names: it may lack what it needs, and its last option a value."""
    if words[0].isupper():
        return
    try:
        check(words, whole=False)
    except NoCommandError:
        if not words[-1].startswith("-"):
            raise
        check([*words, "x"], whole=False)


def test_no_command_is_without_an_example_in_its_document() -> None:
    shown = [words for path in DOCUMENTS for words in fenced(path)]
    assert len(shown) > 60
    for path in tree():
        assert any(tuple(words[: len(path)]) == path for words in shown), path


@pytest.mark.parametrize("path", list(tree()), ids=" ".join)
def test_every_example_of_a_help_is_a_command(path: tuple[str, ...]) -> None:
    command = found(path)[0]
    text = click.unstyle(command.help or "")
    for line in re.findall(r"(?:Example: |^ +)kcm (.*)$", text, re.MULTILINE):
        check(next(lines(f"kcm {line}")))
