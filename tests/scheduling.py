"""Which tests share a worker of pytest-xdist, and which start first.

A group of tests runs on one worker, in the order of its file. A group is a file, with two
exceptions. The tests that use the session's shared system (the fixture ``living``) are one group,
so that there is one such system. In the files of ``ALONE`` every test is a group: each is seconds
of computing and shares nothing with the others.

Tests of real systems mostly wait: for leases, restarts, and timeouts. The other tests compute.
Half of the workers prefer the first kind, the other half prefers the second kind, so that both run
at the same time and not more than half of the workers start systems while other tests are left.
Groups that take long start first; a group that takes long and starts last leaves workers idle.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

from tests import lanes

ROOT: Final = Path(__file__).parents[1]
SHARED: Final = "living"
"""The fixture that is one system for the whole session, and the group of the tests that use it."""
ALONE: Final = ("tests/simulation/test_variants.py",)
"""Files whose tests are groups of their own."""
WAITING: Final = frozenset({"broker", "chaos"})
"""Lanes whose tests start real systems."""
LANES: Final = (
    "chaos", "broker", "providers", "simulation", "security", "processes", "heavy",
    "architecture", "fast",
)  # fmt: skip
"""Lanes in the order in which their groups start: long tests first."""


def group_of(nodeid: str) -> str:
    """Return the group of a test by its id."""
    path, _, test = nodeid.partition("[")[0].partition("::")
    if path in ALONE:
        return nodeid
    return SHARED if test in users(path) else path


def waits(nodeid: str) -> bool:
    """Whether the test starts a real system."""
    return lanes.lane_of(nodeid) in WAITING


def ordered(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the tests in the order in which their groups start.

    First the group of the shared system, then the groups with a test that is marked ``slow``, then
    the others; each by lane, the tests of ``ALONE`` first in it, and by the number of tests.
    """
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        groups.setdefault(group_of(item.nodeid), []).append(item)

    def rank(name: str) -> tuple[bool, bool, int, bool, int]:
        tests = groups[name]
        slow = any(test.get_closest_marker("slow") for test in tests)
        lane = min(LANES.index(lanes.lane_of(test.nodeid)) for test in tests)
        return name != SHARED, not slow, lane, not name.startswith(ALONE), -len(tests)

    return [item for name in sorted(groups, key=rank) for item in groups[name]]


@cache
def users(path: str) -> frozenset[str]:
    """Functions of the file that take the shared system, or a fixture of the file that takes it."""
    if lanes.LANES[lanes.folder_of(path)] not in WAITING or not (ROOT / path).is_file():
        return frozenset()
    functions = {
        node.name: {argument.arg for argument in node.args.args}
        for node in ast.parse((ROOT / path).read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    if SHARED in functions:
        return frozenset()  # the file has a system of its own by that name
    found, size = {SHARED}, 0
    while len(found) > size:
        size = len(found)
        found |= {name for name, asked in functions.items() if asked & found}
    return frozenset(found)


class Scheduler(LoadScopeScheduling):
    """Gives groups to workers in the order of the tests, and each worker the kind it prefers."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # which would start files with many tests first

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        prefers = self.nodes.index(node) % 2 == 0
        for name, tests in self.workqueue.items():
            if waits(next(iter(tests))) is prefers:
                self.workqueue.move_to_end(name, last=False)
                break
        super()._assign_work_unit(node)
