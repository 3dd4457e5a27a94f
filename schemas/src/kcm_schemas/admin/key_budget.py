"""How many root keys a Core has in use, of how many that it may have."""

from __future__ import annotations

from typing import Literal

from kcm_schemas.codec import Message
from kcm_schemas.names import U32, U64, Name

RoomState = Literal["free", "filling", "crowded"]
"""Filling: nine tenths of the allowed keys are in use. Crowded: the Core unloads tenants to make
room."""


class KeyUse(Message):
    """How many root keys one Core has in use, of how many that it may have.

    Above that number the Core unloads the least recently used tenants: ``unloaded`` of them within
    the last ten minutes, ``unloaded_all`` since it started, the last one at ``unloaded_ms``.
    ``since_ms`` is when ``state`` began. Both times are Unix milliseconds by the Core's clock; 0
    means that there is none.
    """

    core: Name
    region: Name
    state: RoomState
    since_ms: U64
    in_use: U32
    most: U32
    unloaded: U32
    unloaded_all: U64
    unloaded_ms: U64
