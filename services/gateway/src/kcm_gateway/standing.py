"""Which instances may act, for applications: the roster, and the holds on keys of instances.

Any application may ask. An answer costs a look-up for each instance of the region, and has no other
holds, also for a client that names the id of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from kcm_killswitch.model.revocations import Revocations
from kcm_runtime.instance import InstanceContext
from kcm_schemas import limits
from kcm_schemas.codec import decode, encode
from kcm_schemas.session import Standing, StandingQuery
from kcm_trust.roster import targets_in

_ROOM: Final = 4096
"""Bytes of an answer besides the roster and the holds, at most."""


class StandingApi:
    """Answers by what this Gateway knows."""

    def __init__(self, me: InstanceContext, revocations: Revocations) -> None:
        self._me: Final = me
        self._revocations: Final = revocations
        self._version = -1
        self._targets: Sequence[str] = ()
        """What holds that concern applications are on, by that version of the roster."""

    async def handle(self, _subject: str, body: bytes) -> bytes:
        """Serve a ``StandingQuery``; raises ``malformed``."""
        query, roster = decode(StandingQuery, body), self._me.rosters.raw
        holds: list[bytes] = []
        left = limits.BODY_MAX - _ROOM - len(roster)
        for one in self._holds(query.known):
            left -= len(one)
            if left < 0 or len(holds) == limits.STANDING_MAX:
                break
            holds.append(one)
        return encode(Standing(roster=roster, holds=holds))

    def _holds(self, known: Sequence[bytes]) -> Iterator[bytes]:
        """Yield holds as they were signed: one for each key that is held, then those known."""
        revocations, seen = self._revocations, set[bytes]()
        for target in self._all_targets():
            for state in revocations.active_on("instance", target)[:1]:
                seen.add(state.hold.id)
                yield state.message
        for hold_id in known:
            found = revocations.holds.get(hold_id)
            if found is not None and found.hold.scope == "instance" and hold_id not in seen:
                seen.add(hold_id)
                yield found.message

    def _all_targets(self) -> Sequence[str]:
        roster = self._me.verifier.roster
        if roster.version != self._version:
            self._version = roster.version
            self._targets = targets_in(roster, self._me.region)
        return self._targets
