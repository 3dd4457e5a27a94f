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
from kcm_schemas.names import key_target
from kcm_schemas.roster import Role
from kcm_schemas.session import Standing, StandingQuery

_ROOM: Final = 4096
"""Bytes of an answer besides the roster and the holds, at most."""


class StandingApi:
    """Answers by what this Gateway knows."""

    def __init__(self, me: InstanceContext, revocations: Revocations) -> None:
        self._me: Final = me
        self._revocations: Final = revocations
        self._version = -1
        self._targets: Sequence[str] = ()
        """What a hold on a Core or Gateway of this region is on, by that version of the roster."""

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
        """Yield each hold once, as it was signed: first those that the application knows."""
        revocations, seen = self._revocations, set[bytes]()
        for hold_id in known:
            state = revocations.holds.get(hold_id)
            if state is not None and state.hold.scope == "instance" and hold_id not in seen:
                seen.add(hold_id)
                yield state.message
        for target in self._all_targets():
            for state in revocations.active_on("instance", target):
                if state.hold.id not in seen:
                    seen.add(state.hold.id)
                    yield state.message

    def _all_targets(self) -> Sequence[str]:
        roster = self._me.verifier.roster
        if roster.version != self._version:
            self._version = roster.version
            self._targets = [
                key_target(one.instance, one.public_key)
                for one in roster.instances
                if one.region == self._me.region and one.role is not Role.AUDITOR
            ]
        return self._targets
