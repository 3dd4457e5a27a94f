"""Progress bars on stderr, if that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kcm.cli.streams import is_terminal

Advance = Callable[[int], None]
"""Gets the bytes done since the last call."""


@contextmanager
def progress(label: str, total: int | None) -> Iterator[Advance]:
    """Show how many of ``total`` bytes are done (``None``: unknown)."""
    if not is_terminal(sys.stderr):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    console = Console(file=sys.stderr)
    with Progress(*columns, TransferSpeedColumn(), console=console, transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.update(task, advance=done)


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how many rows of a list were read, and of how many."""
    if not is_terminal(sys.stderr):
        yield lambda done, total: None  # noqa: ARG005 - no terminal
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)
