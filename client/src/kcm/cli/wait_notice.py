"""Reports on stderr what a command waits for, after some time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from kcm.cli import hold_progress
from kcm.cli.output import note

if TYPE_CHECKING:
    from kcm.cli.settings import Settings
    from kcm.ops.roster_changes import Answered


class RequestNotice:
    """Reports once that a request of several has no result after ``TELL_S``.

    A request is repeated until its deadline; the replies until then may be refusals.
    """

    def __init__(self, settings: Settings, what: str, region: str) -> None:
        self._settings: Final = settings
        self._text: Final = f"{what}: no result yet from region {region}; trying again"
        self._fields: Final = {"asking": what, "silent": [region]}
        self._told = False

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait for one request."""
        import asyncio

        timer = asyncio.get_running_loop().call_later(hold_progress.TELL_S, self._tell)
        try:
            yield
        finally:
            timer.cancel()

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            note(self._settings, self._text, **self._fields)


@contextmanager
def asking(settings: Settings, what: str, regions: Sequence[str]) -> Iterator[Answered]:
    """Report the regions without a reply after ``TELL_S``. Yields the function for each reply."""
    import asyncio

    left = list(regions)

    def tell() -> None:
        text = f"asking for {what}: no reply yet from {', '.join(left)}"
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
