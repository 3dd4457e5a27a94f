"""Importing before the fork what an SDK imports at its first request: every child would pay for it.

A name that a later version of the SDK does not have any more costs time, and nothing else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from importlib import import_module


def preload(names: Iterable[str]) -> None:
    """Import modules that are there."""
    for name in names:
        with contextlib.suppress(ImportError):
            import_module(name)
