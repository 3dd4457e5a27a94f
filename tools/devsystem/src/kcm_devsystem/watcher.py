"""Restarts processes of a development system that end, until ``kcm dev down``.

    python -m kcm_devsystem.watcher --dir DIR

It is a process of the system like the others. ``kcm dev status`` shows it, and ``kcm dev down``
ends it first. It ends by itself when it is not in the system's state file any more. It changes the
system only under the directory's lock, so it does not interfere with a running command. It does not
restart a retired instance, which ends at its start.
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
"""Seconds between two checks of the processes."""

DELAY_FIRST_S: Final = 0.5
"""Seconds until the first restart of a process; doubles with each further one."""

DELAY_MAX_S: Final = 30.0
"""Maximum seconds between two starts, so that a corrected configuration is used soon."""

STABLE_S: Final = 60.0
"""Seconds of running after which the delay starts from ``DELAY_FIRST_S`` again."""


@dataclass(frozen=True, slots=True)
class Ends:
    """How often in a row a process ended, and when it may be restarted, in seconds."""

    count: int = 0
    started: float = float("-inf")
    due: float = 0.0


def ended(known: Ends, now: float) -> Ends:
    """Count the end of a process that was found at ``now``."""
    count = 1 if now - known.started >= STABLE_S else known.count + 1
    delay = min(DELAY_FIRST_S * 2.0 ** min(count - 1, 16), DELAY_MAX_S)
    return Ends(count, known.started, now + delay)


class Watcher:
    """Watches the system in one directory."""

    def __init__(self, root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._root: Final = root
        self._clock: Final = clock
        self._witness: Final = Witness(root)
        self._ends: dict[str, Ends] = {}
        self._waiting: set[str] = set()
        self._left: set[str] = set()
        """Ended instances that are retired or not on the roster; they are not restarted."""

    def look(self) -> bool:
        """Check once and start due processes; ``False`` if this is not the system's watcher."""
        known = state.load(self._root)
        if known is None or not self._is_ours(known):
            return False
        now = self._clock()
        self._witness.look([entry.process for entry in known.entries])
        dead = [status.entry for status in known.status() if not status.running]
        # Watch a process again that a user has started.
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
                # A concurrent command may have ended or started it.
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
                            log.warning("%s is %s: not restarted", name, why)
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
        log.warning("restarting %s", name)
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
    # The starting command writes this process into the state file a moment later.
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
