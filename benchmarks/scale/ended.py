"""What holds that ended long ago cost a process: its start, its memory, and every hold after them.

No network: pages of lifted holds are taken by the production way, signatures and all, as an
incarnation takes them from its region's stream. Then new holds come, and an old one that is
replayed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from kcm_keymem.random import SystemKeyRandomness
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.model.timing import Timing
from kcm_killswitch.replica.hold_applier import HoldApplier
from kcm_killswitch.replica.hold_store import NullHoldStore
from kcm_killswitch.replica.lift_page_keeper import LiftPages
from kcm_runtime.clock import SystemClock
from kcm_runtime.host import Host
from kcm_schemas import limits
from kcm_trust import statements

from benchmarks.kill.purge import REGION, Making, emit_nothing, make_trusted
from benchmarks.kill.sample import Figure
from benchmarks.measure import percentile

PART: Final = "holds that ended long ago, in pages"

COUNTS: Final = (1_000, 100_000, 1_000_000)
"""Lifted holds."""

ROUNDS: Final = 200
"""New holds after them, of each size."""

TIMES_MAX: Final = 2.0
"""How many times as long a new hold may take as with the fewest: a page's ids are digested."""

MIB_MAX: Final = 64.0
"""MiB in one process for a million of them: their ids in pages as signed, and in order."""

_PREFIXES: Final = 256


def measure(counts: Sequence[int], rounds: int) -> list[Figure]:
    """Take pages with so many ids each; processor time."""
    directory = Path(tempfile.mkdtemp(prefix="kcm-bench-"))
    try:
        making = make_trusted(directory)
        times: dict[int, float] = {}
        figures: list[Figure] = []
        for count in counts:
            figures += _size(making, count, rounds, times)
    finally:
        shutil.rmtree(directory)
    first = times[counts[0]]
    figures += [
        Figure(PART, f"{count}: a new hold, over {counts[0]}", took / first, "times", TIMES_MAX)
        for count, took in times.items()
        if count != counts[0]
    ]
    return figures


def _size(making: Making, count: int, rounds: int, times: dict[int, float]) -> list[Figure]:
    raws = _pages(making, count)
    tracemalloc.start()
    process = _Process(making)
    started = time.process_time()
    for raw in raws:
        process.pages.take(raw)
    took = time.process_time() - started
    mib = tracemalloc.get_traced_memory()[0] / 2**20
    tracemalloc.stop()
    known = process.revocations.holds.paged_count
    if known != count:
        raise AssertionError(f"{known} holds are known of {count}")
    process = _Process(making)
    started = time.process_time()
    for raw in raws:
        process.pages.take(raw)
    took = min(took, time.process_time() - started)
    times[count] = process.learn(rounds)
    size = sum(map(len, raws)) / 2**20
    return [
        Figure(PART, f"{count}: taking all pages, processor", took, "s"),
        Figure(PART, f"{count}: memory beside the pages", mib, "MiB", MIB_MAX),
        Figure(PART, f"{count}: the pages", size, "MiB", note=f"{len(raws)} messages"),
        Figure(PART, f"{count}: a new hold, learned and digested", 1e6 * times[count], "µs"),
    ]


class _Process:
    """What an incarnation has of holds."""

    def __init__(self, making: Making) -> None:
        self._making: Final = making
        nobody: Any = None  # what a process without a broker never asks
        host = Host(making.me, SystemClock(), SystemKeyRandomness(), emit_nothing)
        state = ReplicaState.empty(REGION, Timing())
        self.revocations: Final = state.revocations
        self.learning: Final = HoldApplier(host, state, purge=lambda _: 0, changed=lambda _: None)
        self.pages: Final = _Unstored(
            host,
            state,
            stream=nobody,
            hold_store=NullHoldStore(),
            learn=self.learning.learn,
            examine=self.learning.examine,
            ended=lambda _: 0,
            expire=lambda _: False,
        )

    def learn(self, rounds: int) -> float:
        """Seconds of processor for a new hold and the digest of all, the median."""
        took = []
        for _ in range(rounds):
            _, held = statements.hold(
                self._making.operator, scope="tenant", target="victim", cause="operator",
                origin=REGION, issued_ms=0, reason="", salt=os.urandom(limits.ID_SIZE),
            )  # fmt: skip
            started = time.process_time()
            self.learning.learn(held)
            _ = self.revocations.holds.digest
            took.append(time.process_time() - started)
        return percentile(took, 50)


class _Unstored(LiftPages):
    """Writes to no stream."""

    def mend(self) -> None:
        """There is none."""


def _pages(making: Making, count: int) -> list[bytes]:
    """Signed pages of so many holds that nobody has: an id is as good as another."""
    each, more = divmod(count, _PREFIXES)
    found = []
    for prefix in range(_PREFIXES):
        size = each + (prefix < more)
        ids = {bytes((prefix,)) + os.urandom(limits.ID_SIZE - 1) for _ in range(size)}
        if ids:
            joined = b"".join(sorted(ids))
            found.append(
                statements.lifts(
                    making.me.identity, cause="l1", origin=REGION, issued_ms=0, ids=joined
                )
            )
    return found
