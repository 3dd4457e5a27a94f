"""Composition root of the Gateway: the only reader of arguments, environment and clocks."""

from __future__ import annotations

from kcm_runtime.garbage_collection import collect_seldom

if __name__ == "__main__":
    collect_seldom()

import sys

from kcm_keymem.random import SystemKeyRandomness
from kcm_runtime.clock import Clock
from kcm_runtime.instance import load_instance
from kcm_runtime.process import run
from kcm_schemas.roster import Role

from kcm_gateway.config import GatewayConfig
from kcm_gateway.service import GatewayService


def _build(config: GatewayConfig, clock: Clock) -> GatewayService:
    randomness = SystemKeyRandomness()
    return GatewayService(
        config, load_instance(config, Role.GATEWAY, randomness), clock, randomness
    )


if __name__ == "__main__":
    sys.exit(run("kcm_gateway", GatewayConfig, _build))
