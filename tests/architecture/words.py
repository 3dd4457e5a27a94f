"""The word list: wording that this project does not use, and what to write instead.

The check reads the prose files (README, CONTRIBUTING, SECURITY, the newest section of the CHANGELOG
and `docs/`). In the product's code it reads docstrings, comments and string literals (errors, log
lines, help texts). Text in backticks, code blocks and URLs are names, not prose: it skips them.
The rules are in `word_rules.py`.

The budget, `words_left.txt`, lists the files that still have hits, and how many. A budget may only
shrink: the check fails for a file with more hits than its budget, and also for a budget that is
higher than the number of hits.

    python -m tests.architecture.words [PATH...]             list hits: file, line, suggestion
    python -m tests.architecture.words --check               compare with the budget; may fail
    python -m tests.architecture.words --update              lower the budget to the present hits
    python -m tests.architecture.words --update --allow-new  write the budget from the present hits

After files were moved or renamed, use the last form. After a merge conflict in the budget, take
either side and run `--update`.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.architecture import ratchet
from tests.architecture.prose import passages
from tests.architecture.word_rules import RULES, Rule

ROOT = Path(__file__).resolve().parents[2]
BUDGET = "tests/architecture/words_left.txt"


@dataclass(frozen=True)
class Hit:
    path: Path
    line: int
    found: str
    rule: Rule

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: '{self.found}': {self.rule.instead} ({self.rule.why})"


def hits(path: Path, root: Path) -> list[Hit]:
    """Return what the rules find in a file, in the order of its lines."""
    found = []
    for passage in passages(path):
        for rule in RULES:
            for start, end in rule.find(passage.text):
                line = min(passage.line + passage.text.count("\n", 0, start), passage.last)
                words = " ".join(passage.text[start:end].split())
                found.append(Hit(path.relative_to(root), line, words, rule))
    return sorted(found, key=lambda hit: (hit.line, hit.rule.name))


def checked_files(root: Path) -> list[Path]:
    names = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
    prose = [root / name for name in names if (root / name).is_file()]
    sources = [
        path
        for pattern in ("*/src", "*/*/src")
        for folder in root.glob(pattern)
        if not folder.relative_to(root).parts[0].startswith(".")
        for path in folder.rglob("*.py")
    ]
    return sorted({*prose, *(root / "docs").rglob("*.md"), *sources})


def counts(root: Path) -> Counter[str]:
    """Return the number of hits of each file that has any."""
    files = checked_files(root)
    numbers = {path.relative_to(root).as_posix(): len(hits(path, root)) for path in files}
    return Counter({name: number for name, number in numbers.items() if number})


def read_budget(root: Path) -> Counter[str]:
    return ratchet.read(root / BUDGET)


def write_budget(budget: Mapping[str, int], root: Path) -> None:
    ratchet.write(root / BUDGET, "Hits of the word list that are left, see words.py.", budget)


def problems(found: Counter[str], budget: Counter[str]) -> list[str]:
    """Return what differs from the budget, a line for each file."""
    over = [
        f"{name}: {number} hits, {budget[name]} allowed;"
        f" see: python -m tests.architecture.words {name}"
        for name, number in sorted(found.items())
        if number > budget[name]
    ]
    slack = [
        f"{name}: {number} allowed, {found[name]} hits;"
        " lower it with: python -m tests.architecture.words --update"
        for name, number in sorted(budget.items())
        if number > found[name]
    ]
    return over + slack


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.architecture.words")
    parser.add_argument(
        "paths", nargs="*", type=Path, help="files or folders; all when none is given"
    )
    parser.add_argument("--check", action="store_true", help="compare with the budget")
    parser.add_argument(
        "--update", action="store_true", help="lower the budget to the present hits"
    )
    parser.add_argument("--allow-new", action="store_true", help="with --update: raise it as well")
    options = parser.parse_args(arguments)
    whole = options.check or options.update
    if (options.paths and whole) or (options.allow_new and not options.update):
        parser.error("--check and --update take no paths; --allow-new needs --update")

    files = checked_files(root)
    if options.paths:
        chosen = [path.resolve() for path in options.paths]
        files = [f for f in files if any(f == path or path in f.parents for path in chosen)]
        if not files:
            parser.error("none of these files is checked")
    if not whole:
        found = [hit for path in files for hit in hits(path, root)]
        print(*found, f"{len(found)} hits in {len(files)} files", sep="\n")
        return 0

    present, budget = counts(root), read_budget(root)
    if options.update:
        budget = present if options.allow_new else budget & present
        write_budget(budget, root)
    complaints = problems(present, budget)
    print(*complaints, f"{present.total()} hits left, {budget.total()} allowed", sep="\n")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
