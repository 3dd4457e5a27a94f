"""The prose of a file: a Markdown file without code, or a module's docstrings, comments and texts.

Text in backticks and URLs are names, not prose: they are replaced, so that no rule finds them.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CODE = "\N{MIDDLE DOT}"  # stands in for a name in backticks, so that no pattern matches across it


@dataclass(frozen=True)
class Passage:
    """Prose of one file, and the lines on which it begins and ends."""

    text: str
    line: int = 1
    last: int = sys.maxsize


def blank(match: re.Match[str]) -> str:
    """Replace what is not prose, and keep its lines."""
    return re.sub(r"[^\n]", CODE, match[0])


def without_names(text: str) -> str:
    """Replace names in backticks, and URLs."""
    text = re.sub(
        r"(?<!`)(`+)(?!`)(?:(?!\n[ \t]*\n).)+?(?<!`)\1(?!`)", blank, text, flags=re.DOTALL
    )
    return re.sub(r"\b\w+://[^\s)>\]]+", blank, text)


def markdown(text: str) -> Iterator[Passage]:
    """Yield the prose of a Markdown file: without code, names, link targets and comments."""
    lines, fence = [], ""
    for line in text.splitlines():
        mark = re.match(r"[ \t>]*(`{3,}|~{3,})", line)
        if fence:
            if mark and mark[1].startswith(fence) and not line.strip(" \t>`~"):
                fence = ""
            lines.append("")
        elif mark:
            fence = mark[1]
            lines.append("")
        else:
            lines.append(line)
    prose = re.sub(r"<!--.*?-->", blank, "\n".join(lines), flags=re.DOTALL)
    prose = re.sub(r"(?<=\])\([^)]*\)", blank, without_names(prose))
    line = 1
    for part in re.split(r"(\n[ \t]*(?:\n|(?=[-*+|]\s|\d+\.\s|#+\s)))", prose):
        if part.strip():
            yield Passage(re.sub(r"\A\s*(?:[-*+]|\d+\.|#+)\s+", blank_mark, part), line)
        line += part.count("\n")


def blank_mark(match: re.Match[str]) -> str:
    """Drop the mark of a list or heading: the sentence begins after it."""
    return re.sub(r"[^\n]", " ", match[0])


def newest_section(text: str) -> str:
    """Return a changelog up to the end of its first section."""
    heads = [match.start() for match in re.finditer(r"^## ", text, re.MULTILINE)]
    return text[: heads[1]] if len(heads) > 1 else text


def comments(source: str) -> Iterator[Passage]:
    """Yield comments; those on consecutive lines are one passage."""
    block: list[str] = []
    begin = last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if block and token.start[0] != last + 1:
            yield Passage(without_names("\n".join(block)), begin)
            block = []
        if not block:
            begin = token.start[0]
        block.append(token.string.lstrip("#!: "))
        last = token.start[0]
    if block:
        yield Passage(without_names("\n".join(block)), begin)


def literals(source: str) -> Iterator[Passage]:
    """Yield docstrings and all other string literals that have several words."""
    parts: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            parts |= {id(value) for value in node.values}
            text = "".join(
                value.value if isinstance(value, ast.Constant) else CODE for value in node.values
            )
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts
        ):
            text = node.value
        else:
            continue
        if re.search(r"[A-Za-z]\s+[A-Za-z]", text):
            yield Passage(without_names(text), node.lineno, node.end_lineno or node.lineno)


def passages(path: Path) -> Iterator[Passage]:
    """Yield the prose of a file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from literals(text)
        yield from comments(text)
    else:
        yield from markdown(newest_section(text) if path.name == "CHANGELOG.md" else text)
