"""Inspection of both stores for entries that vanished: nothing is delivered for them.

The bucket's count of messages shows an emptied bucket. It does not suffice, because an attacker can
add other messages. The names of the second store's files do not suffice, because a damaged file
keeps its name. So each inspection also compares some entries in both stores, one part of the
registry after another.
"""

from __future__ import annotations

import logging
from typing import Final

from kcm_killswitch.replica.registry_follower import RegistryFollower
from kcm_runtime.error_text import describe

from kcm_core.registry.repair import RegistryRepair
from kcm_core.registry.stores import RegistryStores

log = logging.getLogger(__name__)

COMPARED_MAX: Final = 32
"""Entries that each inspection compares in both stores."""


class RegistryInspection:
    """Finds entries that a store has lost or damaged, and has them repaired."""

    def __init__(
        self, stores: RegistryStores, feed: RegistryFollower, repairs: RegistryRepair
    ) -> None:
        self._stores: Final = stores
        self._feed: Final = feed
        self._repairs: Final = repairs
        self._compared = 0
        """The number of entries, in order, that the inspections have compared."""

    async def run(self) -> None:
        """Inspect once. The bucket's repairs are pending then, the second store's are done."""
        try:
            messages = await self._stores.messages()
        except Exception as error:  # noqa: BLE001 - the next inspection follows soon
            log.warning("the registry's bucket cannot be looked at: %s", describe(error))
            return
        keys = sorted(self._feed.keys)
        if messages < len(keys):
            for key in keys:
                self._repairs.add(key, "")
        self._compared = self._compared if self._compared < len(keys) else 0
        for key in keys[self._compared : self._compared + COMPARED_MAX]:
            self._repairs.add(key, "")
            await self._repairs.heal_copy(key)
        self._compared += COMPARED_MAX
