"""What an engine has in memory and in progress."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """What the engine has in memory and in progress, as counts; none of it is secret."""

    tenants: int
    """Tenants with keys in memory."""
    pools: int
    """Services with a pool of data keys."""
    pooled_keys: int
    """Data keys that are wrapped and ready for an encryption."""
    cached_keys: int
    """Unwrapped data keys in the cache."""
    requests: int
    """Requests to a Core in progress."""
    queues: int
    """Service keys with unwraps that wait or are in progress."""
