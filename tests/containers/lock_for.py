"""The lock's requirements for another version of Python, with their hashes and without markers.

    python lock_for.py LOCK VERSION

pip evaluates the markers for the Python that it runs on, and the images have another one: Debian's.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from packaging.requirements import Requirement


def lock_for(lock: str, version: str) -> str:
    """Return the lines of ``lock`` that hold for the full Python version ``version``."""
    found = []
    for entry in re.split(r"\n(?=\S)", lock):
        head, _, hashes = entry.partition(" \\\n")
        if head.startswith("#"):
            continue
        requirement = Requirement(head)
        marker, requirement.marker = requirement.marker, None
        if marker is None or marker.evaluate({"python_full_version": version}):
            found.append(f"{requirement} \\\n{hashes}")
    return "\n".join(found)


if __name__ == "__main__":
    print(lock_for(Path(sys.argv[1]).read_text(), sys.argv[2]))
