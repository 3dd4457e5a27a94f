"""Every test has one lane, and a test of the fast lane starts no process."""

import ast
import asyncio
import contextlib
import multiprocessing
import os
import subprocess
import sys

import pytest

from tests import lanes
from tests.architecture.words import ROOT


@pytest.mark.parametrize(
    ("test", "lane"),
    [
        ("tests/integration/test_kill.py::test_x", "broker"),
        ("tests/unit/test_trust_verify.py::test_x[a-1]", "fast"),
        ("tests/unit/test_tools.py::test_x", "processes"),
        ("tests/unit/switch/test_steady.py::test_x[1]", "heavy"),
        ("tests/unit/test_release.py::test_x", "processes"),
        ("tests/unit/test_releases.py::test_x", "fast"),
    ],
)
def test_a_test_is_in_the_lane_of_its_folder_or_of_a_list(test, lane):
    assert lanes.lane_of(test) == lane


def test_a_list_names_one_test_with_all_its_parameters(monkeypatch):
    monkeypatch.setitem(lanes.LISTED, "tests/unit/test_a.py::test_one", "heavy")
    assert lanes.lane_of("tests/unit/test_a.py::test_one") == "heavy"
    assert lanes.lane_of("tests/unit/test_a.py::test_one[x]") == "heavy"
    assert lanes.lane_of("tests/unit/test_a.py::test_one_more") == "fast"


def test_every_folder_with_tests_has_a_lane():
    folders = {path.relative_to(ROOT).parts[1] for path in (ROOT / "tests").rglob("test_*.py")}
    assert {f"tests/{name}/" for name in folders} == set(lanes.LANES)
    assert {*lanes.LANES.values(), "processes", "heavy"} == set(lanes.MARKERS)


@pytest.mark.parametrize("entry", [*lanes.PROCESSES, *lanes.HEAVY])
def test_what_a_list_names_exists(entry):
    path, _, name = entry.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    functions = [
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert not name or name in functions


COMMAND = [sys.executable, "-c", ""]


def spawn():
    context = multiprocessing.get_context("spawn")
    context.Process(target=print).start()


async def start():
    await asyncio.create_subprocess_exec(*COMMAND)


STARTS = {
    "run": lambda: subprocess.run(COMMAND, check=False),
    "fork": os.fork,
    "posix_spawn": lambda: os.posix_spawn(COMMAND[0], COMMAND, os.environ),
    "system": lambda: os.system("true"),
    "asyncio": lambda: asyncio.run(start()),
    "spawn": spawn,
}


@pytest.fixture
def guard(request):
    made = lanes.Guard()
    made.begin(request.node.nodeid)
    yield made
    made.test = None


@pytest.mark.parametrize("start", STARTS)
def test_a_fast_test_that_starts_a_process_fails(guard, start):
    with pytest.raises(pytest.fail.Exception, match="list it in PROCESSES"):
        STARTS[start]()


def test_a_failure_that_a_test_swallows_comes_again(guard):
    with contextlib.suppress(pytest.fail.Exception):
        STARTS["run"]()
    with pytest.raises(pytest.fail.Exception):
        guard.end()


def test_other_tests_may_start_processes(guard):
    guard.end()
    assert subprocess.run(COMMAND, check=False).returncode == 0
