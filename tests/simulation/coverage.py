"""Which races a run has seen. A simulation in which one never happens says nothing about it."""

from __future__ import annotations

from collections import Counter
from typing import Final

RACES: Final = (
    "an unseal in flight when a kill lands",
    "a reply in flight when a kill lands",
    "a pool's refill in flight when a kill lands",
    "a purge while a worker uses the key",
    "kill, lift, kill",
    "a lift races a kill",
    "two operators at once",
    "a kill during catch-up",
    "a stale message after its lift",
    "the issuer dies before the acknowledgement",
    "a crash right after the purge",
    "a restart loop",
    "a key that flaps",
    "endpoints that disagree",
    "wrong credentials on one instance",
    "a rollback",
    "a recreation",
    "a minority",
    "a signer who is retired",
    "a lift that does not count any more",
    "a write that a disk refuses",
    "a region that loses its stream and every process",
    "a kill that outlives both",
    "a hold lost for good",
    "a pause",
    "a suspend",
    "a side that hears nothing",
    "a wall clock that jumps",
    "a message held between check and send",
    "an answer too late to be accepted",
    "a late flush",
    "a cut leaf",
    "a lost acknowledgement",
    "a put stored late",
    "a put that conflicts with what nobody can read",
    "a put that conflicts with itself",
    "a proposal that is never stored",
    "a dropped callback",
    "a region cut off",
    "a kill complete by receipts",
    "a kill complete by the clock",
    "a hold caused by a key",
    "a lift caused by a key",
    "a page that a Core signed",
    "a page that lies",
    "a lifted hold stored once more",
    "an earlier page stored once more",
    "a registry that comes late",
    "a registry that was set back",
    "a registry that was emptied",
    "a fork of the registry",
    "a Core that is gone when it has accepted a record",
    "a record that was refused",
    "a Core without a baseline of its registry",
    "a kill of a link just after a tenant came to it",
    "a hold on a key of an application",
    "a hold on a key of an instance",
    "an application that is refused",
    "an application's entry that changes",
    "a thief in a Gateway",
    "a result that is told once more",
    "a bucket of results that is emptied",
    "a result that is concluded anew",
)
"""Every one has to be covered by a run of the whole."""


class Coverage(Counter[str]):
    """How often each race happened."""

    def saw(self, race: str, times: int = 1) -> None:
        """Count one; a race has to be on the list."""
        if race not in RACES:
            raise KeyError(race)
        if times:
            self[race] += times

    @property
    def missing(self) -> list[str]:
        """What never happened."""
        return [race for race in RACES if not self[race]]
