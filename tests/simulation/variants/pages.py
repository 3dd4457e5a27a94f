"""Naive pages of lifted holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.revocations import Revocations

if TYPE_CHECKING:
    from tests.simulation.instance import Instance


class PageOfAnyCause(Revocations):
    """An id in a page ends its hold, whatever cause and origin the page is of."""

    def turned(self, prefix: int, group: str, paged: bytes) -> list[HoldState]:
        gone = []
        for each in {group, *(record.group for record in self.holds)}:
            gone += super().turned(prefix, each, paged)
        return gone


class PagedIsForgotten(Revocations):
    """What a page ends is not known any more."""

    def turned(self, prefix: int, group: str, paged: bytes) -> list[HoldState]:
        gone = super().turned(prefix, group, paged)
        super().turned(prefix, group, b"")
        return gone


def expires_before_stored(instance: Instance) -> None:
    """Messages of holds expire though no stream has the page that ends them."""
    lifts: Any = instance.switch.holds.pages
    lifts.has = lambda _: True
