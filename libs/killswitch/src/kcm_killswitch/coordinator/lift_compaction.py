"""Compaction of lifted holds: a Core writes pages of the lifts of its own region's root keys.

It moves a hold that a root key of its region caused into a page one day after it has seen the lift,
once every other region has the lift, too. A root key that flaps causes thousands of holds.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from kcm_runtime.error_text import describe
from kcm_runtime.host import Host
from kcm_runtime.logs import fields
from kcm_runtime.tasks import TaskSet
from kcm_schemas import limits
from kcm_schemas.audit import EventType
from kcm_schemas.codes import KcmError
from kcm_trust.statements import lifts

from kcm_killswitch.coordinator.region_sync import RegionSync
from kcm_killswitch.model import id_set
from kcm_killswitch.model.lift_pages import Place
from kcm_killswitch.model.replica_state import ReplicaState
from kcm_killswitch.replica.killswitch import KillSwitch
from kcm_killswitch.replica.log_fields import of_page

log = logging.getLogger(__name__)

EVERY_S: Final = 3600.0
"""Seconds between two searches for holds that can be paged."""

KEEP_S: Final = 86_400.0
"""Seconds after its lift for which a hold is not paged, so that an incident review finds it."""

LEAST: Final = 64
"""Minimum number of lifted holds for a page; fewer are left for the next search."""

SAME_S: Final = 900.0
"""Seconds within which every other region has to have known the same holds."""

AT_ONCE: Final = 64
"""Number of holds that are examined before the loop yields."""

FULL: Final = 0.9
"""Part of a signer's page that may be used before a warning is logged."""


class LiftCompaction:
    """Writes the lift pages that this Core may write."""

    def __init__(
        self,
        host: Host,
        replica_state: ReplicaState,
        *,
        switch: KillSwitch,
        regions: RegionSync,
        every_s: float = EVERY_S,
        keep_s: float = KEEP_S,
        least: int = LEAST,
    ) -> None:
        self._me: Final = host.me
        self._revocations: Final = replica_state.revocations
        self._switch: Final = switch
        self._regions: Final = regions
        self._clock: Final = host.clock
        self._chance: Final = host.chance
        self._emit: Final = host.emit
        self._every_s: Final = every_s
        self._keep_s: Final = keep_s
        self._least: Final = least
        self._tasks: Final = TaskSet()

    def start(self) -> None:
        """Search at intervals, jittered so that the Cores do not all search at once."""
        self._tasks.spawn(self._run())

    def close(self) -> None:
        """Stop."""
        self._tasks.close()

    async def compact(self) -> int:
        """Page what can be paged now. Returns the number of paged holds. Raises ``unavailable``."""
        if not self._regions.all_same_since(self._clock.elapsed() - SAME_S):
            return 0
        found = await self._old()
        if sum(map(len, found.values())) < self._least:
            return 0
        count = 0
        for prefix, new in sorted(found.items()):
            count += await self._page(prefix, new)
        if count:
            log.info(
                "%d lifted holds are in pages now",
                count,
                extra=fields(region=self._me.region, count=count),
            )
            self._emit(
                EventType.HOLD_COMPACTED, count=count, detail=f"cause l1, origin {self._me.region}"
            )
        return count

    async def _run(self) -> None:
        while not self._tasks.closed:
            await asyncio.sleep(self._every_s * (0.5 + self._chance()))
            try:
                await self.compact()
            except KcmError as error:
                log.warning(
                    "lifted holds are not paged until the next search: %s",
                    error.detail,
                    extra=fields(region=self._me.region, code=error.code.value),
                )
            except Exception as error:  # noqa: BLE001 - a task that stops paging lets memory grow
                log.error(
                    "lifted holds are not paged until the next search: %s",
                    describe(error),
                    extra=fields(region=self._me.region),
                )

    async def _old(self) -> dict[int, list[bytes]]:
        """The ids of lifted holds that this Core may page, by first byte.

        Their age is what this Core has observed itself: any signer that may lift can write any time
        into its lift.
        """
        before = self._clock.elapsed() - self._keep_s
        found: dict[int, list[bytes]] = {}
        for number, state in enumerate(self._revocations.holds.in_order()):
            if number % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
            own = (state.hold.cause, state.hold.origin) == ("l1", self._me.region)
            if own and state.lifted and self._switch.stored_since(state) <= before:
                found.setdefault(state.hold.id[0], []).append(state.hold.id)
        return found

    async def _page(self, prefix: int, new: list[bytes]) -> int:
        """Write one page: the ids that it had, and as many more as there is room for."""
        place = Place("l1", self._me.region, self._me.name, prefix)
        known = await self._switch.fetch_page(place)
        room = limits.LIFTS_MAX - len(known) // limits.ID_SIZE
        if room < (1 - FULL) * limits.LIFTS_MAX:
            log.warning(
                "the page of lifted holds whose ids begin with %02x is nearly full, and later ones "
                "stay outside: add a Core with a new key",
                prefix,
                extra=fields(**of_page(place), count=len(known) // limits.ID_SIZE),
            )
        found = id_set.without(id_set.of(new), known)[: max(0, room) * limits.ID_SIZE]
        if not found:
            return 0
        raw = lifts(
            self._me.identity,
            cause="l1",
            origin=self._me.region,
            issued_ms=self._clock.unix_ms(),
            ids=id_set.union(known, found),
        )
        self._switch.learn(raw)
        return len(found) // limits.ID_SIZE
