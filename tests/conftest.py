"""Settings for all tests: no test asserts a time, so hypothesis does not either.

With several workers (``pytest -n 2 --dist loadgroup``) the tests of real processes stay on one of
them, one after the other: each of them takes the machine for itself. The others fill the rest.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Whoever started this ignores Ctrl-C. What the tests start must not inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("kcm", deadline=None)
settings.load_profile("kcm")


ROOT: Final = Path(__file__).parent

SYSTEMS: Final = ("integration", "chaos")
"""Directories whose tests start real processes."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests share a worker: those of real processes, and else those of one file."""
    for item in items:
        place = item.path.relative_to(ROOT)
        group = "systems" if place.parts[0] in SYSTEMS else str(place)
        item.add_marker(pytest.mark.xdist_group(group))


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
