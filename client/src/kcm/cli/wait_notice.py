"""Says on stderr what a command waits for, when that takes a while."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kcm.cli import hold_progress
from kcm.cli.output import note

if TYPE_CHECKING:
    from kcm.cli.settings import Settings
    from kcm.ops.roster_changes import Answered


@contextmanager
def asking(settings: Settings, what: str, regions: Sequence[str]) -> Iterator[Answered]:
    """Name, after a while, the regions that have not answered; give it each one that has."""
    import asyncio

    left = list(regions)

    def tell() -> None:
        text = f"asking for {what}: no answer yet from {', '.join(left)}"
        note(settings, text, asking=what, silent=left)

    timer = asyncio.get_running_loop().call_later(hold_progress.TELL_S, tell)

    def answered(region: str) -> None:
        left.remove(region)
        if not left:
            timer.cancel()

    try:
        yield answered
    finally:
        timer.cancel()
