"""Scripts in a process of their own, where texts hash in another way."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def output(script: str, seed: int, hashing: str) -> str:
    """What a script prints for a seed, with ``hashing`` as the seed of Python's own hashes."""
    done = subprocess.run(
        [sys.executable, "-c", script, str(seed)],
        env={**os.environ, "PYTHONHASHSEED": hashing},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()
