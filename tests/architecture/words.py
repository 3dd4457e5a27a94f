"""The word list: wording that this project does not use, and what to write instead.

The check reads the prose files (README, CONTRIBUTING, SECURITY, the newest section of the CHANGELOG
and `docs/`). In the product's code it reads docstrings, comments and string literals (errors, log
lines, help texts). Text in backticks, code blocks and URLs are names, not prose: it skips them.

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
import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.architecture import ratchet

ROOT = Path(__file__).resolve().parents[2]
BUDGET = "tests/architecture/words_left.txt"

CODE = "\N{MIDDLE DOT}"  # stands in for a name in backticks, so that no pattern matches across it


@dataclass(frozen=True)
class Rule:
    """A wording to replace. `unless` matches a longer span in which the wording is correct."""

    name: str
    pattern: str
    instead: str
    why: str
    unless: str = r"(?!)"

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield where each hit begins and ends: a named group, or the whole match."""
        allowed = [match.span() for match in re.finditer(self.unless, text, re.IGNORECASE)]
        for match in re.finditer(self.pattern, text, re.IGNORECASE):
            start, end = match.span(match.lastgroup or 0)
            if not any(left <= start and end <= right for left, right in allowed):
                yield start, end


PERSON = "name the party: the caller, the reader, the operator, an attacker, another process"
BE = r"(?:is|are|was|were|be|been|being)"
FINITE = (
    r"(?:is|are|was|were|has|have|had|does|must|may|can|cannot|will|should"
    r"|(?:add|ask|begin|come|count|differ|end|fail|find|follow|get|give|hear|hold|keep|lack|learn|leave"
    r"|look|lose|make|need|purge|read|say|see|serve|sign|stay|stop|take|tell|wait|write)s)"
)
VERB = (
    r"[*_\"]*\s+(?!(?:this|that|it|they|he|she|we|you|else)\b)"
    rf"[\w']+(?:\s+[\w'*-]+){{0,12}}?\s+{FINITE}\b"
)

RULES = (
    Rule(
        "whoever",
        r"\bwho(?:so)?m?ever\b",
        PERSON,
        "a relative clause without a noun hides which component or role acts",
    ),
    Rule(
        "who without a noun",
        r"(?:\A\s*|\n[ \t]*\n\s*|[.;!?][*_\"')]*\s+|\b(?:but|because|so|then)\s+)"
        rf"[*_\"]*(?P<first>who)(?={VERB})"
        r"|\b(?:only|that|by|for|to|of|than|with|against|reach(?:es)?)\s+(?P<later>who)\b",
        PERSON,
        "'who' needs the noun to which it refers",
        unless=r"\bwho\s+(?:\w+\s+){1,3}(?:what|which|whom|when)\b|\bwho\b(?:\s*,|[^.;!?]*\?)",
    ),
    Rule(
        "nobody, somebody",
        r"\b(?:no|some|any|every)body\b",
        PERSON + "; or use the passive voice",
        "components, roles and processes act in this system, not persons at large",
    ),
    Rule(
        "an own, the own",
        r"\b(?:an?|the|no|any|every|each)\s+own\b",
        "its own, or 'of its own'",
        "'own' needs a possessive in English",
    ),
    Rule(
        "behind",
        r"\bbehind\b",
        "after (in an order or a stream), above (a sequence), past (a position), with",
        "an order has 'before' and 'after'",
        unless=r"\b(?:leav\w+|left|lag\w*|f[ae]ll\w*|stay\w*)(?:\s+\w+){0,3}\s+behind\b"
        rf"|\b{BE}\s+behind(?=\s*(?:[.,;:)]|\Z|up\b|on\b|it\b|the\s+others?\b))"
        r"|\bbehind\s+(?:(?:an?|the|its)\s+)?(?:[\w-]+\s+)?"
        r"(?:proxy|proxies|nat|firewall|load\s+balancer)\b"
        r"|\bbehind\s+the\s+scenes\b",
    ),
    Rule(
        "anew",
        r"\banew\b",
        "again; for a thing: recreate, restart, rewrite, re-read",
        "archaic; the verb with 're-' is precise",
    ),
    Rule(
        "lies",
        r"\b(?:lies?|lay|lying|lain)\s+(?:in|on|at|under|beside|there|above|below|behind|with|outside"
        r"|between|where|here|open|elsewhere|beyond|before|anywhere|somewhere|ahead)\b"
        r"|\bwhere\s+(?:\w+\s+){1,4}(?:lies?|lay)\b",
        "is, is stored, is located",
        "things are or are stored; a component lies only when it makes a false statement",
        unless=r"\b(?:lies?|lying)\s+in\s+(?:its|their)\s+(?:answers?|repl(?:y|ies)|statements?)\b",
    ),
    Rule(
        "stands",
        r"\b(?:stands?|stood)\b",
        "is, is stated, is listed, is in force; of a hold: its state",
        "text is stated or listed, a hold is in force",
        unless=r"\b(?:stands?|stood)\s+(?:for|by|in\s+for)\b|\bstand-(?:in|by|alone)s?\b",
    ),
    Rule(
        "told",
        rf"\b{BE}\s+(?:\w+ly\s+)?told\b|\btold\s+(?:of|by|from)\b",
        "reported, printed, answered, notified; recognised by, distinguished from",
        "software reports, answers and notifies",
        unless=rf"\b{BE}\s+(?:\w+ly\s+)?told\s+(?:apart|that|to(?!\s+be\b))\b",
    ),
    Rule(
        "said",
        rf"\b{BE}\s+said\b",
        "stated, reported, printed, logged",
        "software states, reports and prints",
        unless=rf"\b{BE}\s+said\s+to\b",
    ),
    Rule(
        "is none",
        rf"\b{BE}\s+none\b",
        "is not one, is not valid, is absent",
        "'none' is no predicate: say what the thing is",
        unless=rf"\bthere\s+{BE}\s+none\b|\b{BE}\s+none\s+of\b",
    ),
    Rule(
        "as it is known",
        rf"\bas\s+(?:it|he|they)\s+{BE}\s+known\b",
        "in the state that this instance has",
        "say which component knows it",
    ),
    Rule(
        "goes on",
        r"\b(?:go|goes|went|going|gone)\s+on\b",
        "continues, resumes, keeps (doing)",
        "a phrasal verb with many meanings",
        unless=r"\b(?:go|goes|went|going|gone)\s+on\s+(?:the|an?|its|their|disk|record|call|top)\b"
        rf"|\b{BE}\s+going\s+on\b(?!\s+\w+ing\b)",
    ),
    Rule(
        "of before",
        r"\bof\s+before\b",
        "earlier, previous, old",
        "not English",
    ),
    Rule(
        "all the same",
        r"\ball\s+the\s+same(?=\s*(?:[.,;:)*]|\Z|\n\s*\n))",
        "nevertheless, still",
        "an idiom that reads as 'all equal'",
    ),
    Rule(
        "word",
        r"(?:'s|\bown|\bsigned)\s+word\b(?!\s+for\b)",
        "statement, attestation, report",
        "a signed message is a statement",
    ),
    Rule(
        "house",
        r"\b(?:the|of\s+this|this)\s+house\b(?!-)",
        "the repository, the code base, the layout",
        "a metaphor",
    ),
    # Terms that were replaced: docs/glossary.md says by what, and why.
    Rule(
        "fence",
        r"\bfenc(?:e|es|ed|ing)\b",
        "peer lease (of another region); region quorum (the policy)",
        "in distributed systems a fence is a fencing token",
        unless=r"\bfencing[\s-]+tokens?\b|\bgeo-fenc\w+\b|\bcode\s+fences?\b",
    ),
    Rule(
        "boot",
        r"\bboot(?:s|ed)?\b",
        "incarnation (one run of a process); start (the event)",
        "a machine boots; a process has incarnations",
        unless=r"\b(?:secure|measured|trusted)\s+boot\b|\bboot\s+(?:time|loader)s?\b"
        r"|\b(?:machines?|hosts?|kernels?|servers?|vms?)\s+boot(?:s|ed)?\b",
    ),
    Rule(
        "on record",
        r"\bon\s+record\b",
        "registered, has a lease entry (an instance); recorded (an event); known (a tenant)",
        "'record' means an encrypted data record",
    ),
    Rule(
        "record, of something else",
        r"\b(?:lease|registry|audit|roster|hold)\s+records?\b",
        "lease entry, registry entry, audit event or journal entry, hold",
        "'record' means an encrypted data record",
    ),
    Rule(
        "sentinel",
        r"\bsentinels?\b",
        "key monitor (the component); probe scheduler (the decision)",
        "a sentinel is a marker value, or a product of another system",
        unless=r"\bsentinel\s+(?:value|object)s?\b",
    ),
    Rule(
        "proof",
        r"\bproofs?\b",
        "key-use attestation (the statement); key lease (what it gives)",
        "a signed statement attests; a proof is mathematical, as in a transparency log",
        unless=r"\b(?:inclusion|consistency|merkle|formal|security|mathematical)\s+proofs?\b"
        r"|\b(?:tamper|future)-proof\b|\bproof\s+of\s+(?:possession|work|concept|inclusion|identity)\b",
    ),
    Rule(
        "seal a tenant",
        r"\bseal(?:s|ed|ing)?\s+(?:(?:the|a|an|every|some|its|of|more|further)\s+)*tenants?\b"
        rf"|\btenants?\b(?:\s+(?:that|which|of\s+further\s+ones))?\s+(?:{BE}\s+)?(?:\w+\s+)?sealed\b",
        "unload (keys that are not used, or whose lease ended); purge (for a hold)",
        "'seal' means to encrypt with authentication",
    ),
    Rule(
        "tenant key",
        r"\btenant\s+keys?\b",
        "tenant root (L2), service key (L3)",
        "two layers could be meant",
    ),
)


@dataclass(frozen=True)
class Passage:
    """Prose of one file, and the lines on which it begins and ends."""

    text: str
    line: int = 1
    last: int = sys.maxsize


@dataclass(frozen=True)
class Hit:
    path: Path
    line: int
    found: str
    rule: Rule

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: '{self.found}': {self.rule.instead} ({self.rule.why})"


def blank(match: re.Match[str]) -> str:
    """Replace what is not prose, and keep its lines."""
    return re.sub(r"[^\n]", CODE, match[0])


def without_names(text: str) -> str:
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
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from literals(text)
        yield from comments(text)
    else:
        yield from markdown(newest_section(text) if path.name == "CHANGELOG.md" else text)


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
