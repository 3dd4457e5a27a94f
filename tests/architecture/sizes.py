"""The limits of a file and of a function, in product code and tests.

The budget, `sizes_left.txt`, lists what is over a limit, and its number of lines. A budget may only
shrink: the check fails for anything that is longer than its budget, and for a budget that is higher
than the number of lines.

    python -m tests.architecture.sizes            list what is over a limit
    python -m tests.architecture.sizes --update   lower the budget to the present numbers
    python -m tests.architecture.sizes --allow-new  write the budget from the present numbers

After a file was moved or renamed, use the last form. After a merge conflict in the budget, take
either side and run `--update`.
"""

import argparse
import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.architecture import ratchet

ROOT = Path(__file__).resolve().parents[2]
BUDGET = "tests/architecture/sizes_left.txt"
HEAD = "Files and functions that are longer than the limits of sizes.py."

FILE_LINES = 350
FUNCTION_LINES = 60
FOLDERS = ("schemas", "libs", "services", "client", "tools", "tests")


def functions(tree: ast.AST, outer: str = "") -> Iterator[tuple[str, int]]:
    """Yield the qualified name of each function, and how many lines it has."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from functions(node, outer)
            continue
        name = f"{outer}{node.name}"
        if not isinstance(node, ast.ClassDef):
            yield name, (node.end_lineno or node.lineno) - node.lineno + 1
        yield from functions(node, f"{name}.")


def sizes(source: str) -> Iterator[tuple[str, int]]:
    """Yield what is over a limit in a module: a function's name, or nothing for the file."""
    lines = len(source.splitlines())
    if lines > FILE_LINES:
        yield "", lines
    for name, length in functions(ast.parse(source)):
        if length > FUNCTION_LINES:
            yield f"::{name}", length


def present(root: Path) -> Counter[str]:
    """Return everything that is over a limit, and its number of lines."""
    return Counter(
        {
            f"{path.relative_to(root).as_posix()}{name}": number
            for folder in FOLDERS
            for path in (root / folder).rglob("*.py")
            for name, number in sizes(path.read_text(encoding="utf-8"))
        }
    )


def problems(found: Counter[str], budget: Counter[str]) -> list[str]:
    """Return what differs from the budget, a line for each file or function."""
    return [
        f"{name}: {found[name]} lines, {budget[name] or 'no more than the limit'} allowed"
        if found[name] > budget[name]
        else f"{name}: {budget[name]} lines allowed; lower it with: python -m"
        " tests.architecture.sizes --update"
        for name in sorted(found | budget)
        if found[name] != budget[name]
    ]


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.architecture.sizes")
    parser.add_argument("--update", action="store_true", help="lower the budget")
    parser.add_argument("--allow-new", action="store_true", help="write the budget, raise it too")
    options = parser.parse_args(arguments)
    found, budget = present(root), ratchet.read(root / BUDGET)
    if options.update or options.allow_new:
        budget = found if options.allow_new else budget & found
        ratchet.write(root / BUDGET, HEAD, budget)
    else:
        print(*(f"{name} {number}" for name, number in sorted(found.items())), sep="\n")
    complaints = problems(found, budget)
    print(*complaints, f"{len(found)} over a limit, {len(budget)} allowed", sep="\n")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
