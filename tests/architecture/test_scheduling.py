"""Tests that share something are on one worker, and workers take both kinds of tests at once."""

from types import SimpleNamespace
from typing import cast

import pytest
from xdist.workermanage import WorkerController

from tests import lanes, scheduling
from tests.architecture.words import ROOT

SYSTEMS = [f"tests/integration/test_{name}.py::test_one" for name in "abc"]
COMPUTED = [f"tests/unit/test_{name}.py::test_one" for name in "abc"]


@pytest.mark.parametrize(
    ("test", "group"),
    [
        ("tests/unit/test_one.py::test_a", "tests/unit/test_one.py"),
        ("tests/unit/test_one.py::test_a[x::y]", "tests/unit/test_one.py"),
        (f"{scheduling.ALONE[0]}::test_a[b]", f"{scheduling.ALONE[0]}::test_a[b]"),
        ("tests/integration/test_gone.py::test_a", "tests/integration/test_gone.py"),
    ],
)  # fmt: skip
def test_a_group_is_a_file_or_where_nothing_is_shared_a_test(test, group):
    assert scheduling.group_of(test) == group


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Writes a file of tests and returns the group of each of its tests."""

    def written(text):
        path = f"tests/integration/test_{len(list(tmp_path.rglob('*.py')))}.py"
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        monkeypatch.setattr(scheduling, "ROOT", tmp_path)
        return {name: scheduling.group_of(f"{path}::{name}") == scheduling.SHARED for name in "tu"}

    scheduling.users.cache_clear()
    yield written
    scheduling.users.cache_clear()


def test_tests_of_the_shared_system_are_one_group(source):
    assert source("def t(living): ...\nasync def u(fragile): ...") == {"t": True, "u": False}
    text = "def a(living): ...\ndef b(a): ...\nasync def t(b): ...\ndef u(c): ..."
    assert source(text) == {"t": True, "u": False}


def test_a_system_of_a_files_own_is_not_the_shared_one(source):
    assert source("def living(tmp_path): ...\ndef t(living): ...") == {"t": False, "u": False}


def test_the_shared_system_is_used():
    files = [
        str(path.relative_to(ROOT)) for path in (ROOT / "tests/integration").rglob("test_*.py")
    ]
    using = [path for path in files if scheduling.users(path) - {scheduling.SHARED}]
    assert 2 < len(using) < len(files)


def item(nodeid, *, slow=False):
    marks = {"slow"} if slow else set()
    return cast(
        "pytest.Item",
        SimpleNamespace(nodeid=nodeid, get_closest_marker=lambda name: name in marks),
    )


def test_long_groups_start_first_and_tests_of_a_file_stay_in_order():
    fast = [item("tests/unit/test_one.py::test_b"), item("tests/unit/test_one.py::test_a")]
    more = [item(f"tests/unit/test_more.py::test_{n}") for n in range(3)]
    broker = item("tests/integration/test_one.py::test_a")
    slow = item("tests/integration/test_slow.py::test_a", slow=True)
    assert scheduling.ordered([*fast, *more, broker, slow]) == [slow, broker, *more, *fast]


def test_every_lane_that_is_scheduled_has_its_place():
    assert {*scheduling.LANES, "containers"} == set(lanes.MARKERS)


class Node:
    """A worker that does what it is sent when it is told to."""

    shutting_down = False
    gateway = SimpleNamespace(id="a worker")

    def __init__(self, scheduler, tests):
        self.scheduler, self.tests, self.sent = scheduler, tests, []
        scheduler.add_node(self.node)
        scheduler.add_node_collection(self.node, tests)

    @property
    def node(self):
        return cast("WorkerController", self)

    def send_runtest_some(self, indices):
        self.sent += indices

    def shutdown(self):
        self.shutting_down = True

    def done(self):
        return [self.tests[index] for index in self.sent]


def test_each_worker_takes_the_kind_that_it_prefers_and_then_the_other():
    tests = [*SYSTEMS, *COMPUTED]
    config = SimpleNamespace(
        getvalue=lambda _: ["2*popen"], option=SimpleNamespace(loadscopereorder=True)
    )
    scheduler = scheduling.Scheduler(cast("pytest.Config", config))
    waiting, computing = Node(scheduler, tests), Node(scheduler, tests)
    scheduler.schedule()
    assert waiting.done() == SYSTEMS[:2]
    assert computing.done() == COMPUTED[:2]
    for index in list(waiting.sent):
        scheduler.mark_test_complete(waiting.node, index)
    assert waiting.done() == [*SYSTEMS, COMPUTED[2]]
