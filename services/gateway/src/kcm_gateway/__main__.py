"""Composition root of the Gateway: the only reader of arguments, environment and clocks."""

from __future__ import annotations

import sys

from kcm_bus.clock import Clock, Randomness
from kcm_bus.membership import join_system
from kcm_bus.process import run
from kcm_schemas.roster import Role

from kcm_gateway.config import GatewayConfig
from kcm_gateway.service import GatewayService


def _build(config: GatewayConfig, clock: Clock, randomness: Randomness) -> GatewayService:
    return GatewayService(config, join_system(config, Role.GATEWAY, randomness), clock, randomness)


if __name__ == "__main__":
    sys.exit(run("kcm_gateway", GatewayConfig, _build))
