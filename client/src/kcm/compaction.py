"""Pages of lifted holds that an operator signs: thousands of ended holds become a few messages.

A page ends what it names, so it is never signed on a Core's word: each lift is verified here, by
the roster, and only its own hold's id goes into a page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from kcm_schemas import limits
from kcm_schemas.codes import KcmError
from kcm_schemas.control import Cause
from kcm_trust.statements import lifts
from kcm_trust.verify import Untrusted

from kcm.admin import Admin
from kcm.errors import UntrustedReply

Group = tuple[Cause, str, int]
"""Cause, origin and first byte of the ids: what one page has."""


@dataclass(slots=True)
class Compactable:
    """Lifted holds that can be paged, and why others cannot."""

    new: dict[Group, set[bytes]] = field(default_factory=dict)
    young: int = 0
    """Lifted too short a time ago."""
    unsure: int = 0
    """Of lifts that are not believed by the roster of the context alone."""

    @property
    def count(self) -> int:
        """How many holds."""
        return sum(map(len, self.new.values()))


class Compaction:
    """Pages lifted holds through one region; the others get the pages from it."""

    def __init__(self, admin: Admin, region: str) -> None:
        self._admin: Final = admin
        self._region: Final = region

    async def find(self, before_ms: int, seen: Callable[[int], None]) -> Compactable:
        """What was lifted before a moment and no page has; ``seen`` gets the lifts so far."""
        found, count = Compactable(), 0
        async for some in self._admin.lifted(self._region):
            for raw in some:
                self._sort(raw, before_ms, found)
            count += len(some)
            seen(count)
        return found

    async def write(self, found: Compactable, seen: Callable[[int], None]) -> int:
        """Sign pages and have them stored; how many holds they end. ``seen`` gets that so far.

        Raises ``ServiceError``; what was stored before stays, and the rest is found the next time.
        """
        known = await self._own()
        count = 0
        for group, new in sorted(found.new.items()):
            cause, origin, _ = group
            before = known.get(group, set())
            room = max(0, limits.LIFTS_MAX - len(before))
            added = sorted(new - before)[:room]
            if not added:
                continue
            raw = lifts(
                self._admin.identity,
                cause=cause,
                origin=origin,
                issued_ms=self._admin.around.clock.unix_ms(),
                ids=b"".join(sorted(before.union(added))),
            )
            await self._admin.put_lift_page(self._region, raw)
            count += len(added)
            seen(count)
        return count

    def _sort(self, raw: bytes, before_ms: int, found: Compactable) -> None:
        try:
            lift = self._admin.verifier.lift(raw)
        except Untrusted:
            found.unsure += 1
            return
        if lift.lift.issued_ms >= before_ms:
            found.young += 1
            return
        hold = lift.held.hold
        found.new.setdefault((hold.cause, hold.origin, hold.id[0]), set()).add(hold.id)

    async def _own(self) -> dict[Group, set[bytes]]:
        """The ids in this operator's pages."""
        name = self._admin.identity.name
        known: dict[Group, set[bytes]] = {}
        try:
            raws = await self._admin.lift_pages(self._region, name)
            pages = [self._admin.verifier.lifts(raw) for raw in raws]
        except (KcmError, Untrusted) as error:
            raise UntrustedReply(f"an own page of lifted holds is not believed: {error}") from None
        for page in pages:
            if page.signer != name:
                raise UntrustedReply("a page of lifted holds of somebody else was given as an own")
            body, size = page.lifts, limits.ID_SIZE
            them = known.setdefault((body.cause, body.origin, body.prefix), set())
            them.update(body.ids[at : at + size] for at in range(0, len(body.ids), size))
        return known
