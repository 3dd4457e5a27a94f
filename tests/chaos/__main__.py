"""``python -m tests.chaos``: mixed faults over real processes, judged at the end.

Prints what happens as it happens (stderr) and one JSON object at the end (stdout). Exit codes: 0
every promise was kept, 1 one was broken, or nothing was served, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import signal
import sys
from pathlib import Path

from tests.chaos import packets
from tests.chaos.report import good
from tests.chaos.run import Wanted, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--seconds", type=float, default=600, help="for which faults happen")
    parser.add_argument("--seed", type=int, default=None, help="what the schedule follows from")
    parser.add_argument("--logs", type=Path, help="where the logs of all processes are kept")
    asked = parser.parse_args()
    packets.enter()
    seed = random.SystemRandom().randrange(1 << 32) if asked.seed is None else asked.seed
    # Also where whoever started this ignores Ctrl-C, as a shell does for what is in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    logging.basicConfig(level=logging.CRITICAL)  # connections are lost all the time
    _tell(f"seed {seed}, {asked.seconds:.0f} s")
    try:
        result = run(Wanted(asked.seconds, seed, asked.logs), _tell)
    except KeyboardInterrupt:
        _tell("interrupted; everything has ended")
        return 130
    print(json.dumps(result, indent=2))
    return 0 if good(result) else 1


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
