"""Check that the checkout can be released: `python -m tests.release [DIR]`.

Exit code 0: it can. 1: it cannot; standard error has a line for each reason. The steps of a release
are in `RELEASE.md`.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSION_FILE = "schemas/src/kcm_schemas/version.py"

CONTACT = re.compile(r"^Contact: <?((?:mailto:|https://)[^\s>]+)>?$", re.MULTILINE)
"""The line of `SECURITY.md` that says where a vulnerability is reported, as in RFC 9116."""
RESERVED = re.compile(r"[@/.]example(?:\.(?:com|net|org))?\b|\.(?:invalid|test|localhost)\b")
"""Names that no one can own (RFC 2606): an address with one of them is a placeholder."""


def main() -> int:
    """Print why the checkout cannot be released, if so."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    found = list(problems(root))
    for problem in found:
        print(f"release-check: {problem}", file=sys.stderr)
    if not found:
        print(f"version {version(root)} can be released")
    return 1 if found else 0


def problems(root: Path) -> Iterator[str]:
    """Yield each reason not to release what is in `root`, the top of a git work tree."""
    yield from contact_problems((root / "SECURITY.md").read_text())
    number = version(root)
    yield from changelog_problems((root / "CHANGELOG.md").read_text(), number)
    if changed := git(root, "status", "--porcelain"):
        yield f"the work tree has changes that are not committed:\n{changed}"
    if git(root, "tag", "--list", f"v{number}"):
        yield f"the tag v{number} exists: set the next version in {VERSION_FILE}"


def contact_problems(text: str) -> Iterator[str]:
    """Yield what is wrong with the contact in the text of `SECURITY.md`."""
    contacts = CONTACT.findall(text)
    if not contacts:
        yield "SECURITY.md has no line `Contact: mailto:...` or `Contact: https://...`"
    for contact in contacts:
        if RESERVED.search(contact):
            yield f"the contact in SECURITY.md is a placeholder: {contact}"


def changelog_problems(text: str, number: str) -> Iterator[str]:
    """Yield what the text of `CHANGELOG.md` lacks of a section for this version."""
    heading = rf"^## \[?{re.escape(number)}\]? - \d{{4}}-\d{{2}}-\d{{2}}$"
    sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    section = next((part for part in sections if re.match(heading, part, re.MULTILINE)), None)
    if section is None:
        yield f"CHANGELOG.md has no section `## {number} - YYYY-MM-DD`"
    elif not re.search(r"^- ", section, re.MULTILINE):
        yield f"the section {number} of CHANGELOG.md is empty"


def version(root: Path) -> str:
    """Return the version that every distribution of the checkout has."""
    match = re.search(r'VERSION: Final = "([^"]+)"', (root / VERSION_FILE).read_text())
    if match is None:
        raise SystemExit(f"release-check: {VERSION_FILE} has no version")
    return match[1]


def git(root: Path, *arguments: str) -> str:
    """Return the output of a git command; ends this program where it fails, with git's text."""
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"release-check: {done.stderr.rstrip()}")
    return done.stdout.rstrip()


if __name__ == "__main__":
    sys.exit(main())
