"""The state of an order to several regions, which an interruption reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kcm.cli.settings import Settings


class OrderState:
    """Keeps the report of an interruption up to date while regions are asked."""

    def __init__(self, settings: Settings, regions: Sequence[str], shows: str) -> None:
        """``shows`` is a command that shows what one region has, without its ``--region``."""
        self._settings: Final = settings
        self._shows: Final = shows
        self._of: Final = dict.fromkeys(regions, "nothing was changed")

    @contextmanager
    def asking(self, region: str) -> Iterator[None]:
        """Mark a region's result as unknown between request and reply."""
        self._is(region, "not known of")
        try:
            yield
        except Exception:
            self._is(region, "refused by, or not reached")
            raise
        self._is(region, "done in")

    def _is(self, region: str, how: str) -> None:
        self._of[region] = how
        by_how: dict[str, list[str]] = {}
        for name, one in self._of.items():
            by_how.setdefault(one, []).append(name)
        nothing = by_how.pop("nothing was changed", [])
        parts = [f"{one} {', '.join(names)}" for one, names in by_how.items()]
        parts += [f"nothing was changed in {', '.join(nothing)}"] if nothing else []
        look = f"`{self._shows} --region {region}` shows what a region has"
        again = "the same command again repeats no finished change"
        self._settings.leaves("; ".join(parts), f"{look}; {again}")
