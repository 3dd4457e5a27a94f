"""``python -m tests.fuzz [--seconds N] [--only TARGET]``: fuzz each target for N seconds.

The inputs that reach new branches are kept below ``.cache/fuzz/corpus`` and are the start of the
next run. An input that a target does not take is kept in ``.cache/fuzz/crashes``, and its path is
printed. Exit code 1 if there is one, 2 if a target could not run.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.fuzz.targets import TARGETS

CACHE: Final = Path(__file__).parents[2] / ".cache" / "fuzz"
SIZE: Final = 4096
"""Bytes of an input, at the most: longer ones reach no other branch."""

CRASHED: Final = 77
"""The exit code of the fuzzer for an input that its target does not take."""

START_S: Final = 120
"""Seconds that a target may take beside the search: to load, and to run the seeds."""


def main() -> int:
    """Run the targets; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--only", choices=TARGETS, help="one target instead of all")
    given = parser.parse_args()
    worst = 0
    for name in [given.only] if given.only else TARGETS:
        worst = max(worst, fuzz(name, given.seconds))
    return worst


def fuzz(name: str, seconds: int) -> int:
    """Fuzz one target, and tell what came of it; returns its exit code."""
    corpus, crashes = CACHE / "corpus" / name, CACHE / "crashes"
    corpus.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(parents=True, exist_ok=True)
    for seed in TARGETS[name].seeds():
        (corpus / hashlib.sha256(seed).hexdigest()[:32]).write_bytes(seed)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.fuzz.child", name),
            *(f"-max_total_time={seconds}", f"-max_len={SIZE}", "-print_final_stats=1"),
            *(f"-artifact_prefix={crashes}/{name}-", f"-error_exitcode={CRASHED}", str(corpus)),
        ],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds + START_S,
        check=False,
    )
    counted = re.search(r"number_of_executed_units: *(\d+)", done.stderr)
    runs = int(counted[1]) if counted else 0
    print(f"{name:<12} {runs:>10} inputs  {told(done.returncode, done.stderr, runs)}", flush=True)
    if done.returncode == CRASHED:
        return 1
    return 0 if done.returncode == 0 and runs else 2


def told(code: int, stderr: str, runs: int) -> str:
    """What a run came to, in words."""
    if code == 0 and runs:
        return "ok"
    kept = re.search(r"Test unit written to (\S+)", stderr)
    last = "\n".join(stderr.splitlines()[-30:])
    return f"exit code {code}; the input is {kept[1] if kept else 'not kept'}\n{last}"


if __name__ == "__main__":
    sys.exit(main())
