"""Architecture decision records are complete, indexed, and reachable by every link to them."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
RECORDS: Final = Path("docs/adr")

SECTIONS: Final = ("Context", "Decision", "Consequences")
"""Required sections, in this order."""

OPTIONAL: Final = "Rejected alternatives"
"""The one section that may follow them."""

TEXT: Final = {".md", ".py", ".toml", ".yaml", ".yml", ".txt", ".in", ".conf", ".service", ""}
"""Suffixes of files that may refer to a record."""

FILE_NAME: Final = re.compile(r"(\d{4})-[a-z0-9-]+\.md")
HEAD: Final = re.compile(r"# (\d+)\. (\S.*)\n\n- Status: (.+)\n- Date: (.+)\n\n## Context\n")
STATUS: Final = re.compile(r"accepted(?:, amended by (\d+))?|superseded by (\d+)")
ROW: Final = re.compile(r"^\| (\d+) \| \[(.+)\]\((.+)\) \| (.+) \| (.+) \|$", re.MULTILINE)
LINK: Final = re.compile(r"\[([^\[\]]*)\]\(([^()\s#]+)[^()\s]*\)")
PATH: Final = re.compile(r"\badr/(\d{4})(-[\w-]+\.md)?")
MENTION: Final = re.compile(r"\bADRs?\s+(\d+)")
TEST: Final = re.compile(r"\btests/[\w/.-]*\w")


@dataclass(frozen=True, slots=True)
class Record:
    """A record's header. ``status`` has numbers in place of links."""

    path: Path
    number: int
    title: str
    status: str
    date: str


def slug(title: str) -> str:
    """The part of a file name that follows from a title."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower().replace("'", "")).strip("-")


def plain(text: str) -> str:
    """Text with the label of each link in place of the link."""
    return LINK.sub(r"\1", text)


def header(path: Path, text: str) -> Record | None:
    found = HEAD.match(text)
    if found is None:
        return None
    number, title, status, day = found.groups()
    return Record(path, int(number), title, plain(status), day)


def faults_of_record(record: Record, text: str) -> Iterator[str]:
    """What is wrong with one record by itself."""
    if record.path.name != f"{record.number:04}-{slug(record.title)}.md":
        yield "the file name does not follow from number and title"
    if not STATUS.fullmatch(record.status):
        yield f"unknown status: {record.status}"
    try:
        date.fromisoformat(record.date)
    except ValueError:
        yield f"not a date: {record.date}"
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    names, bodies = tuple(parts[1::2]), parts[2::2]
    if names not in {SECTIONS, (*SECTIONS, OPTIONAL)}:
        yield f"sections: {', '.join(names)}"
    yield from (
        f"empty section: {name}"
        for name, body in zip(names, bodies, strict=True)
        if not body.strip()
    )


def faults_of_successor(record: Record, texts: dict[int, str]) -> Iterator[str]:
    """What is wrong with the later record that a status names."""
    found = STATUS.fullmatch(record.status)
    successor = int(found[1] or found[2] or 0) if found else 0
    if not successor:
        return
    if successor <= record.number or successor not in texts:
        yield f"the status names {successor}, which is no later record"
    elif record.path.name not in texts[successor]:
        yield f"record {successor} does not link back"


def faults_of_index(records: list[Record], index: str) -> Iterator[str]:
    """Where the index differs from the records."""
    listed = [
        (int(number), title, target, plain(status), day)
        for number, title, target, status, day in ROW.findall(index)
    ]
    there = [(one.number, one.title, one.path.name, one.status, one.date) for one in records]
    yield from (f"the index lacks or misstates {one[0]}" for one in there if one not in listed)
    yield from (f"the index lists {one[0]} wrongly" for one in listed if one not in there)
    if listed != sorted(listed):
        yield "the index is not in the order of the numbers"


def files(root: Path) -> Iterator[Path]:
    """Text files of the repository, without what tools put there."""
    for path in sorted(root.iterdir()):
        if path.is_dir():
            hidden = path.name.startswith(".") and path.name not in {".github", ".ci"}
            if not hidden and path.name not in {"node_modules", "__pycache__"}:
                yield from files(path)
        elif path.suffix in TEXT and path.resolve() != Path(__file__).resolve():
            yield path


def faults_of_links(path: Path, text: str, names: dict[int, str]) -> Iterator[str]:
    """Links and mentions in one file that lead to no record, or to another one than they say."""
    if path.suffix == ".md":
        for label, target in LINK.findall(text):
            found = FILE_NAME.fullmatch(target.rpartition("/")[2])
            if found is None or "://" in target:
                continue
            if not (path.parent / target).is_file():
                yield f"broken link: {target}"
            said = re.fullmatch(r"(?:ADR\s+)?(\d+)", label)
            if said and int(said[1]) != int(found[1]):
                yield f"the link says {label} and leads to {target}"
    for number, rest in PATH.findall(text):
        if int(number) not in names or (rest and names[int(number)] != number + rest):
            yield f"no such record: adr/{number}{rest}"
    for number in MENTION.findall(text):
        if int(number) not in names:
            yield f"no such record: ADR {number}"


def faults(root: Path) -> list[str]:
    """Everything that is wrong with the records of a repository and with references to them."""
    found: list[str] = []
    records: list[Record] = []
    texts: dict[int, str] = {}
    for path in sorted((root / RECORDS).iterdir()):
        if path.name == "README.md":
            continue
        text = path.read_text()
        record = header(path, text)
        if record is None:
            found.append(f"{path.name}: no header of number, title, status and date")
            continue
        records.append(record)
        texts[record.number] = text
        found += [f"{path.name}: {fault}" for fault in faults_of_record(record, text)]
        lost = [test for test in TEST.findall(text) if not (root / test).exists()]
        found += [f"{path.name}: no such test: {test}" for test in lost]
    numbers = Counter(record.number for record in records)
    found += [f"number {number} is used twice" for number, times in numbers.items() if times > 1]
    if sorted(numbers) != list(range(1, len(numbers) + 1)):
        found.append("the numbers have a gap")
    for record in records:
        found += [f"{record.path.name}: {fault}" for fault in faults_of_successor(record, texts)]
    found += list(faults_of_index(records, (root / RECORDS / "README.md").read_text()))
    names = {record.number: record.path.name for record in records}
    for path in files(root):
        text = path.read_text(errors="replace")
        where = path.relative_to(root)
        found += [f"{where}: {fault}" for fault in faults_of_links(path, text, names)]
    return found


def test_records_index_and_links_agree() -> None:
    assert len(list((ROOT / RECORDS).glob("[0-9]*.md"))) >= 35
    assert faults(ROOT) == []


def test_files_that_refer_to_records_are_read() -> None:
    read = {str(path.relative_to(ROOT)) for path in files(ROOT)}
    assert read >= {"README.md", "CHANGELOG.md", "docs/revocation.md", "Makefile", "pyproject.toml"}
    assert not [path for path in read if path.startswith((".venv", ".git/"))]


FIRST: Final = "0001-one.md"
SECOND: Final = "0002-its-the-second.md"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A repository with two records and a document, all of it correct."""
    body = "\n\n## Context\n\nA.\n\n## Decision\n\nB.\n\n## Consequences\n\nC.\n"
    records = tmp_path / RECORDS
    records.mkdir(parents=True)
    status = f"superseded by [2]({SECOND})"
    (records / FIRST).write_text(f"# 1. One\n\n- Status: {status}\n- Date: 2026-01-02{body}")
    (records / SECOND).write_text(
        "# 2. It's the second\n\n- Status: accepted\n- Date: 2026-01-03"
        f"{body}Replaces [ADR 1]({FIRST}).\n"
    )
    (records / "README.md").write_text(
        f"| 1 | [One]({FIRST}) | {status} | 2026-01-02 |\n"
        f"| 2 | [It's the second]({SECOND}) | accepted | 2026-01-03 |\n"
    )
    (tmp_path / "guide.md").write_text(f"See [ADR\n2](docs/adr/{SECOND}) and `docs/adr/0001`.\n")
    (tmp_path / "code.py").write_text(f"# docs/adr/{FIRST}, ADR 2\n")
    return tmp_path


def test_a_correct_repository_has_no_faults(small: Path) -> None:
    assert faults(small) == []


@pytest.mark.parametrize(
    ("path", "old", "new", "fault"),
    [
        (SECOND, "# 2. ", "# ", "no header"),
        (SECOND, "- Status: accepted\n", "", "no header"),
        (SECOND, "## Context", "Text.\n\n## Context", "no header"),
        (SECOND, "accepted", "proposed", "unknown status: proposed"),
        (SECOND, "2026-01-03", "2026-13-03", "not a date"),
        (SECOND, "2026-01-03", "2026-01-04", "the index lacks or misstates 2"),
        (SECOND, "It's the", "It is the", "the file name does not follow"),
        (SECOND, "# 2. ", "# 1. ", "number 1 is used twice"),
        (SECOND, "## Decision\n", "", "sections: Context, Consequences"),
        (SECOND, "C.\n", "C.\n\n## More\n\nD.\n", "Consequences, More"),
        (SECOND, "B.\n", "", "empty section: Decision"),
        (SECOND, "B.\n", "`tests/unit/test_b.py`\n", "no such test: tests/unit/test_b.py"),
        (SECOND, f"[ADR 1]({FIRST})", "it", "record 2 does not link back"),
        (FIRST, "by [2]", "by [3]", "the status names 3"),
        ("README.md", "| accepted |", "| superseded |", "the index lists 2 wrongly"),
        ("README.md", "| 2 |", "| 3 |", "the index lists 3 wrongly"),
        ("README.md", "[One]", "[Two]", "the index lists 1 wrongly"),
        ("README.md", "2026-01-02", "2026-01-03", "the index lists 1 wrongly"),
        ("../../guide.md", SECOND, "0002-second.md", "broken link"),
        ("../../guide.md", "[ADR\n2]", "[ADR\n1]", "and leads to"),
        ("../../guide.md", "adr/0001", "adr/0007", "no such record: adr/0007"),
        ("../../code.py", FIRST, "0001-two.md", "no such record: adr/0001-two.md"),
        ("../../code.py", "ADR 2", "ADR 3", "no such record: ADR 3"),
    ],
)  # fmt: skip
def test_a_fault_is_found(small: Path, path: str, old: str, new: str, fault: str) -> None:
    file = small / RECORDS / path
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    assert [one for one in faults(small) if fault in one]


def test_a_record_that_the_index_lacks_is_found(small: Path) -> None:
    index = small / RECORDS / "README.md"
    index.write_text(index.read_text().splitlines(keepends=True)[0])
    assert faults(small) == ["the index lacks or misstates 2"]


def test_a_gap_in_the_numbers_is_found(small: Path) -> None:
    shutil.move(small / RECORDS / SECOND, small / RECORDS / "0003-its-the-second.md")
    third = small / RECORDS / "0003-its-the-second.md"
    third.write_text(third.read_text().replace("# 2. ", "# 3. "))
    assert "the numbers have a gap" in faults(small)
