"""Starts again whatever of a development system died, until ``kcm dev down``.

    python -m kcm_devsystem.watcher --dir DIR

It is a process of the system like the others: ``kcm dev status`` shows it, ``kcm dev down`` ends it
before anything else, and it ends by itself when it is not in the system's state file any more. It
changes the system under the directory's lock only, so a command that is at work is never disturbed.
Who is retired ends at its start, so nobody starts it again.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from kcm_devsystem import exit_causes, processes, retired, state
from kcm_devsystem.errors import DevError
from kcm_devsystem.exit_causes import Witness
from kcm_devsystem.instances import start_again
from kcm_devsystem.state import Entry, State

log = logging.getLogger(__name__)

LOOK_S: Final = 0.5
"""Seconds between two looks at the processes."""

DELAY_FIRST_S: Final = 0.5
"""Seconds until a process is started again that ended for the first time; doubles."""

DELAY_MAX_S: Final = 30.0
"""Seconds between two starts at most: whoever mends a configuration does not wait long."""

STABLE_S: Final = 60.0
"""Seconds that a process has to run until its next end counts as the first one again."""


@dataclass(frozen=True, slots=True)
class Ends:
    """How often in a row a process ended, and when it may be started again, in seconds."""

    count: int = 0
    started: float = float("-inf")
    due: float = 0.0


def ended(known: Ends, now: float) -> Ends:
    """Take note that a process was found ended at ``now``."""
    count = 1 if now - known.started >= STABLE_S else known.count + 1
    delay = min(DELAY_FIRST_S * 2.0 ** min(count - 1, 16), DELAY_MAX_S)
    return Ends(count, known.started, now + delay)


class Watcher:
    """Looks after the system in one directory."""

    def __init__(self, root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._root: Final = root
        self._clock: Final = clock
        self._witness: Final = Witness(root)
        self._ends: dict[str, Ends] = {}
        self._waiting: set[str] = set()
        self._left: set[str] = set()
        """Those that ended and are not on the roster to act: never started again here."""

    def look(self) -> bool:
        """Look once, and start what is due; ``False`` when this system is not watched any more."""
        known = state.load(self._root)
        if known is None or not self._is_ours(known):
            return False
        now = self._clock()
        self._witness.look([entry.process for entry in known.entries])
        dead = [status.entry for status in known.status() if not status.running]
        # Whoever was started by hand is looked after again.
        self._left &= {entry.process.name for entry in dead}
        dead = [entry for entry in dead if entry.process.name not in self._left]
        for entry in dead:
            name = entry.process.name
            if name not in self._waiting:
                self._waiting.add(name)
                self._ends[name] = ended(self._ends.get(name, Ends()), now)
                log.warning("%s ended%s", name, exit_causes.noted(self._root, entry.process))
        self._waiting &= {entry.process.name for entry in dead}
        if any(self._ends[entry.process.name].due <= now for entry in dead):
            self._start(now)
        return True

    def _start(self, now: float) -> None:
        try:
            with state.exclusive(self._root):
                # Another command may have ended or started it since.
                known = state.load(self._root)
                if known is None or not self._is_ours(known):
                    return
                roster = retired.highest(self._root)
                for status in known.status():
                    name = status.entry.process.name
                    if status.running or self._ends.get(name, Ends(due=now + 1)).due > now:
                        continue
                    if why := retired.why_not(roster, status.entry.instance):
                        if name not in self._left:
                            log.warning("%s is %s: not started again", name, why)
                        self._left.add(name)
                        continue
                    known = known.with_entry(self._again(status.entry, now))
                    state.save(self._root, known)
        except DevError as error:
            log.warning("%s", error)

    def _again(self, entry: Entry, now: float) -> Entry:
        name = entry.process.name
        self._waiting.discard(name)
        self._ends[name] = Ends(self._ends[name].count, now)
        log.warning("starting %s again", name)
        return start_again(self._root, entry)

    def _is_ours(self, known: State) -> bool:
        return any(entry.process.pid == os.getpid() for entry in known.entries)


def main() -> int:
    """Watch until ended; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m kcm_devsystem.watcher")
    parser.add_argument("--dir", type=Path, required=True)
    root = parser.parse_args().dir
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's form
        nonlocal stopping
        stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    watcher = Watcher(root)
    # Whoever started this writes it into the state file a moment later.
    _wait_recorded(root)
    try:
        while not stopping and watcher.look():
            time.sleep(LOOK_S)
    except DevError as error:
        log.error("%s", error)
        return 1
    return 0


def _wait_recorded(root: Path) -> None:
    until = time.monotonic() + processes.READY_SECONDS
    while time.monotonic() < until:
        known = state.load(root)
        if known is not None and any(e.process.pid == os.getpid() for e in known.entries):
            return
        time.sleep(LOOK_S / 10)


if __name__ == "__main__":
    sys.exit(main())
