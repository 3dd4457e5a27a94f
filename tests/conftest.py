"""Settings for all tests: no test asserts a time, so hypothesis does not either.

Every test is marked with its lane (`tests/lanes.py`), and a test of the fast lane fails when it
starts a child process.

With several workers (``pytest -n 2``) `tests/scheduling.py` says which tests share a worker, and
which start first.
"""

from __future__ import annotations

import gc
import logging
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings
from xdist.remote import Producer

from tests import lanes, scheduling

for ignored, action in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    # Whoever started this ignores Ctrl-C or a hang-up. What the tests start must not inherit that.
    if signal.getsignal(ignored) is signal.SIG_IGN:
        signal.signal(ignored, action)

settings.register_profile("kcm", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=10, database=None)
settings.load_profile("kcm")


CONTAINERS: Final = Path(__file__).parent / "containers"
"""Tests that need a Docker engine of their own: ``make test-containers`` names them."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the tests with containers out where the command line does not name them."""
    if collection_path != CONTAINERS:
        return None
    named = (Path(each.partition("::")[0]).resolve() for each in config.args)
    return None if any(each.is_relative_to(CONTAINERS) for each in named) else True


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> scheduling.Scheduler:
    """Say which tests share a worker (``xdist_group`` has no effect with pytest 9.2)."""
    return scheduling.Scheduler(config, log)


guard = lanes.Guard()


def pytest_configure(config: pytest.Config) -> None:
    """Say which lanes there are."""
    for name, meaning in lanes.MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark each test with its lane, before ``-m`` chooses among them; a worker sorts them, too."""
    for item in items:
        item.add_marker(lanes.lane_of(item.nodeid))
    if hasattr(config, "workerinput"):
        items[:] = scheduling.ordered(items)


def pytest_collection_finish() -> None:
    """Take the collected tests out of garbage collection, which would look through all of them."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Watch a test of the fast lane, its fixtures included."""
    if item.get_closest_marker("fast") is not None:
        guard.begin(item.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, object, object]:
    """Stop watching after the last fixture."""
    try:
        return (yield)
    finally:
        guard.end()


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """No test decides what later ones see in the log: commands run in this process set it up."""
    disabled, level, handlers = _log_settings()
    yield
    logging.disable(disabled)
    logging.root.setLevel(level)
    for added in set(logging.root.handlers) - set(handlers):
        logging.root.removeHandler(added)


def _log_settings() -> tuple[int, int, list[logging.Handler]]:
    return logging.root.manager.disable, logging.root.level, list(logging.root.handlers)
