"""Settings for all tests: no test asserts a time, so hypothesis does not either."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Whoever started this ignores Ctrl-C. What the tests start must not inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("kcm", deadline=None)
settings.load_profile("kcm")


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
