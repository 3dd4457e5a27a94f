"""Composition root of the Core: the only reader of arguments, environment and clocks."""

from __future__ import annotations

from kcm_runtime.garbage_collection import collect_seldom

from kcm_core.unsealer.import_guard import forbid_cloud_sdks

forbid_cloud_sdks()
if __name__ == "__main__":
    collect_seldom()

# ruff: noqa: E402 - nothing else may be imported before the import guard is installed

import sys

from kcm_keymem.random import SystemKeyRandomness
from kcm_runtime.clock import Clock
from kcm_runtime.instance import load_instance
from kcm_runtime.process import run
from kcm_schemas.roster import Role

from kcm_core.assembly import Core
from kcm_core.config import CoreConfig
from kcm_core.unsealer.client import Unsealer


class _Process:
    """A Core with its unsealer."""

    def __init__(self, config: CoreConfig, clock: Clock) -> None:
        randomness = SystemKeyRandomness()
        me = load_instance(config, Role.CORE, randomness)
        development = {"KCM_DEVELOPMENT": "1"} if config.development else {}
        log = {"KCM_LOG_FORMAT": config.log.format}
        self._unsealer = Unsealer({**config.unsealer_environment, **development, **log})
        self._core = Core(config, me, self._unsealer, clock, randomness)

    async def start(self) -> None:
        await self._unsealer.start()
        await self._core.start()

    async def close(self) -> None:
        await self._core.close()
        await self._unsealer.close()


if __name__ == "__main__":
    sys.exit(run("kcm_core", CoreConfig, _Process))
