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
from kcm_core.unsealer.confinement.grants import keeping_out


class _Process:
    """A Core with its unsealer."""

    def __init__(self, config: CoreConfig, clock: Clock) -> None:
        randomness = SystemKeyRandomness()
        me = load_instance(config, Role.CORE, randomness)
        self._unsealer = Unsealer(_environment(config))
        self._core = Core(
            config, me, self._unsealer, clock, randomness, lambda: self._unsealer.isolation
        )

    async def start(self) -> None:
        await self._unsealer.start()
        await self._core.start()

    async def close(self) -> None:
        await self._core.close()
        await self._unsealer.close()


def _environment(config: CoreConfig) -> dict[str, str]:
    development = {"KCM_DEVELOPMENT": "1"} if config.development else {}
    log = {"KCM_LOG_FORMAT": config.log.format}
    return {**config.unsealer_environment, **development, **log, **keeping_out(config.own_paths)}


if __name__ == "__main__":
    sys.exit(run("kcm_core", CoreConfig, _Process))
