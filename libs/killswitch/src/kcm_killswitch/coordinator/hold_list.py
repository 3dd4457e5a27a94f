"""The holds that a Core knows, for operators: in pages, and by the first digits of an id.

A Core knows only the ids of the holds that lift pages end. The archive has their statements.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from heapq import merge
from itertools import islice, takewhile
from typing import Final

from kcm_runtime.instance import InstanceContext
from kcm_schemas import limits
from kcm_schemas.admin.holds import HoldMatches, HoldPage, HoldPageQuery, HoldView
from kcm_trust.statements import lifted

from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.revocations import Revocations
from kcm_killswitch.replica.killswitch import KillSwitch

PAGE_BYTES: Final = 256 * 1024
"""Bytes of signed holds in one page of a list.

A view has at most as many bytes in addition to the statement, so the answer stays below the maximum
size of a message.
"""

ARCHIVED_MAX: Final = 32
"""Maximum number of archived holds in one page of a list.

Lift pages end these holds. Each is verified again, which takes about 0.3 ms.
"""

_LAST: Final = b"\xff" * limits.ID_SIZE


class HoldList:
    """Holds in the order of their ids."""

    def __init__(self, me: InstanceContext, revocations: Revocations, switch: KillSwitch) -> None:
        self._me: Final = me
        self._revocations: Final = revocations
        self._switch: Final = switch

    async def page(self, query: HoldPageQuery) -> HoldPage:
        """The holds after an id, as many as one answer has room for."""
        known = self._revocations
        if not query.everything:
            return self._cut(known.in_force(query.after), frozenset(), more=False)
        # The archive has the statements of holds that pages end. Each is verified again, so read a
        # few at a time.
        after = query.after
        while True:
            archived = await self._switch.archived(after, _LAST, ARCHIVED_MAX + 1)
            old = {one.hold.id: one for one in archived.states if one.hold.id > query.after}
            states = _through(archived.last or _LAST, known.holds.in_order(query.after))
            found = list(merge(old.values(), states, key=_id))
            if found or archived.last is None:
                return self._cut(found, old.keys(), more=archived.last is not None)
            after = archived.last  # none of these counts any more

    def _cut(
        self, states: Iterable[HoldState], ended: AbstractSet[bytes], *, more: bool
    ) -> HoldPage:
        """A page of ``records``: pages end the ids in ``ended``; with ``more``, others follow."""
        page: list[HoldView] = []
        size = 0
        for state in states:
            size += len(state.message)
            if page and (size > PAGE_BYTES or len(page) >= limits.HOLD_PAGE_MAX):
                return HoldPage(holds=page, more=True)
            page.append(self._ended_view(state) if state.hold.id in ended else self._view(state))
        return HoldPage(holds=page, more=more)

    async def find(self, prefix: str) -> HoldMatches:
        """The hold whose id begins with ``prefix``; two of them if several do."""
        known = [self._view(one) for one in islice(self._revocations.holds.beginning(prefix), 2)]
        known += [self._ended_view(state) for state in await self.archived(prefix)]
        return HoldMatches(holds=sorted(known, key=lambda view: view.hold_id)[:2])

    async def archived(self, prefix: str) -> list[HoldState]:
        """The holds that a page ends and whose statements this Core has: two at most."""
        digits = 2 * limits.ID_SIZE
        least, most = (bytes.fromhex(prefix.ljust(digits, digit)) for digit in "0f")
        return (await self._switch.archived(least, most, 2)).states

    def _ended_view(self, state: HoldState) -> HoldView:
        view, page = self._view(state), self._switch.ended_by(state)
        if state.lifted or page is None:
            return view
        told = {"lifted": True, "lifted_ms": page.issued_ms, "lifted_by": page.place.signer}
        return view.model_copy(update=told)

    def _view(self, state: HoldState) -> HoldView:
        author = self._me.verifier.author
        lifted_ms, why = (0, "") if state.lift is None else lifted(state.lift)
        return HoldView(
            hold_id=state.hold.id,
            scope=state.hold.scope,
            target=state.hold.target,
            cause=state.hold.cause,
            origin=state.hold.origin,
            issuer=author(state.raw),
            issued_ms=state.hold.issued_ms,
            reason=state.hold.reason,
            lifted=state.lifted,
            lifted_ms=lifted_ms,
            lifted_by="" if state.lift is None else author(state.lift),
            lift_reason=why,
            raw=state.raw,
        )


def _through(last: bytes, states: Iterable[HoldState]) -> Iterator[HoldState]:
    return takewhile(lambda one: one.hold.id <= last, states)


def _id(state: HoldState) -> bytes:
    return state.hold.id
