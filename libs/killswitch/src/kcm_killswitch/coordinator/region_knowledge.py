"""The digests of what a region knows of holds, by which two regions exchange only what differs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from kcm_schemas import limits

from kcm_killswitch.model.revocations import Revocations
from kcm_killswitch.replica.killswitch import KillSwitch


class RegionView(NamedTuple):
    """The digests of what a region knows: of its holds, and of its pages of lifted holds."""

    parts: bytes
    pages: bytes


NOTHING: Final = RegionView(b"", b"")
"""The digests in a pull that asks for no holds, which is frequent: it asks for progress only."""

FIRST: Final = bytes(limits.ID_SIZE)
"""The id before all others; also the hold id of a pull that asks for no hold."""


class RegionKnowledge:
    """The holds and pages that are known in this region, compared with those of another one."""

    def __init__(self, revocations: Revocations, switch: KillSwitch) -> None:
        self._revocations: Final = revocations
        self._switch: Final = switch

    @property
    def digests(self) -> RegionView:
        """The digests of everything that is known here now."""
        return RegionView(self._revocations.holds.parts, self._switch.lift_pages.digests)

    def unlike(self, theirs: RegionView, after: bytes) -> Iterator[bytes]:
        """The statements above ``after``, by id and key, that the owner of ``theirs`` lacks."""
        if theirs == NOTHING:
            return
        holds, pages = self._revocations.holds, self._switch.lift_pages
        for prefix in range(after[0], 256):
            states = [(one.hold.id, one.message) for one in holds.unlike(theirs.parts, prefix)]
            found = [(one.key, one.raw) for one in pages.unlike(theirs.pages, prefix)]
            yield from (raw for key, raw in sorted(states + found) if key > after)
