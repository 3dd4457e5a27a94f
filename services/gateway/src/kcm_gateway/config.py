"""A Gateway's configuration."""

from __future__ import annotations

from typing import Annotated

from kcm_killswitch.replica.config import ReplicaConfig
from kcm_runtime.config import Section
from pydantic import Field


class EngineSettings(Section):
    """The engine's bounds of memory and time; each has its unit in its name."""

    pool_keys_max: Annotated[int, Field(ge=256, le=1 << 16)] = 8192
    """The most pre-wrapped data keys that are kept for one service."""
    cache_keys_max: Annotated[int, Field(ge=0, le=1 << 16)] = 0
    """Unwrapped data keys that are kept for one tenant; 0 turns the cache off."""
    core_timeout_s: Annotated[float, Field(gt=0, le=5)] = 2.0
    """Seconds that a Core has to answer."""


class GatewayConfig(ReplicaConfig):
    """The settings of a Gateway besides those of every instance."""

    engine: EngineSettings = EngineSettings()
