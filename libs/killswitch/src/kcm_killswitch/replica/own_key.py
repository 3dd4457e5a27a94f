"""Reports that an operator took the key of this instance out of service."""

from __future__ import annotations

import asyncio
import logging

from kcm_runtime.instance import InstanceContext
from kcm_runtime.logs import fields

from kcm_killswitch.model.held_keys import HeldKeys

log = logging.getLogger(__name__)


def report_own_hold(held: HeldKeys, me: InstanceContext) -> None:
    """Write a warning to the log after a hold on this instance's key has purged its keys.

    Not at once: a log that nothing reads blocks its writer, and the purge comes first.
    """

    def report() -> None:
        log.warning(
            "a hold is on the key of this instance: it has purged all keys and serves nothing;"
            " `kcm hold list` shows the hold",
            extra=fields(instance=me.name),
        )

    def changed(names: frozenset[str]) -> None:
        if me.name in names and held.has(me.name, me.identity.public):
            asyncio.get_running_loop().call_soon(report)

    held.listen(changed)
