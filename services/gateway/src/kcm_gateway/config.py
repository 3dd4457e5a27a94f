"""A Gateway's configuration."""

from __future__ import annotations

from typing import Annotated

from kcm_killswitch.replica.config import ReplicaConfig
from kcm_runtime.config import Section
from pydantic import Field


class EngineSettings(Section):
    """How the engine trades memory for speed; every bound has its unit in its name."""

    pool_keys_max: Annotated[int, Field(ge=256, le=1 << 16)] = 8192
    """Pre-wrapped data keys kept for one service at most."""
    cache_keys_max: Annotated[int, Field(ge=0, le=1 << 16)] = 0
    """Opened data keys kept for one tenant; 0 turns the cache off."""
    core_timeout_s: Annotated[float, Field(gt=0, le=5)] = 2.0
    """Seconds that a Core gets to answer."""


class GatewayConfig(ReplicaConfig):
    """What a Gateway needs beside what every instance needs."""

    engine: EngineSettings = EngineSettings()
