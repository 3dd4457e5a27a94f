"""Composition root of the Core: the only reader of arguments, environment and clocks."""

from __future__ import annotations

from kcm_runtime.garbage_collection import collect_seldom

from kcm_core.unsealer.import_guard import forbid_cloud_sdks

forbid_cloud_sdks()
if __name__ == "__main__":
    collect_seldom()

# ruff: noqa: E402 - nothing else may be imported before the import guard is installed

import logging
import sys

from kcm_keymem.random import SystemKeyRandomness
from kcm_runtime.clock import Clock
from kcm_runtime.config import ConfigError
from kcm_runtime.instance import load_instance
from kcm_runtime.process import run
from kcm_schemas.roster import Role

from kcm_core.assembly import Core
from kcm_core.config import CoreConfig
from kcm_core.providers.state import L1Error
from kcm_core.unsealer.client import Unsealer
from kcm_core.unsealer.confinement.grants import keeping_out
from kcm_core.unsealer.peer import Unfit, other_user
from kcm_core.unsealer.socket_server import Address, SocketServers

log = logging.getLogger("kcm_core")


class _Process:
    """A Core with its unsealer."""

    def __init__(self, config: CoreConfig, clock: Clock) -> None:
        randomness = SystemKeyRandomness()
        me = load_instance(config, Role.CORE, randomness)
        self._unsealer = _unsealer(config)
        self._is_own = config.unsealer is None
        self._core = Core(
            config, me, self._unsealer, clock, randomness, lambda: self._unsealer.isolation
        )

    async def start(self) -> None:
        try:
            await self._unsealer.start()
        except L1Error as error:
            if self._is_own:
                raise
            # Kills need no root key: this Core serves them until the unsealer is there.
            log.warning("the unsealer is not reached at the start: %s", error.detail)
        await self._core.start()

    async def close(self) -> None:
        await self._core.close()
        await self._unsealer.close()


def _unsealer(config: CoreConfig) -> Unsealer:
    there = config.unsealer
    if there is None:
        return Unsealer(_environment(config))
    try:
        uid = other_user(there.user, there.uid, "the unsealer's user")
    except Unfit as error:
        raise ConfigError(f"unsealer: {error}") from None
    return Unsealer({}, servers=SocketServers(Address(there.socket, uid)))


def _environment(config: CoreConfig) -> dict[str, str]:
    development = {"KCM_DEVELOPMENT": "1"} if config.development else {}
    log = {"KCM_LOG_FORMAT": config.log.format}
    return {**config.unsealer_environment, **development, **log, **keeping_out(config.own_paths)}


if __name__ == "__main__":
    sys.exit(run("kcm_core", CoreConfig, _Process))
