"""What applications ask Cores for, and what Cores open: invariant 10, by true time.

A Core opens a key only for an application that asks it for exactly this key, through the Gateway
that it gives it to, until the deadline by the Core's clock, and that may do so. And it executes no
request of a Gateway twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kcm_schemas.asks import Ask, Asked
from kcm_schemas.names import key_target
from kcm_schemas.roster import Instance

from tests.simulation.apps import Apps, Caller

if TYPE_CHECKING:
    from tests.simulation.core import SimCore


@dataclass(frozen=True, slots=True)
class Made:
    """One ask for one key, as its application made it."""

    caller: Caller
    core: str
    gateway: str
    tenant: str
    wrapped: bytes
    deadline_ms: int


class Asks:
    """Every ask that was made, and every request that was executed."""

    def __init__(self, apps: Apps) -> None:
        self._apps: Final = apps
        self.all: Final[list[tuple[Ask, Made]]] = []
        """What a thief may have seen, too."""
        self._made: Final[dict[bytes, Made]] = {}
        self._taken: Final[set[tuple[bytes, int]]] = set()

    def made(self, ask: Ask, made: Made) -> None:
        """An application asks a Core."""
        self.all.append((ask, made))
        self._made[ask.tag(0)] = made

    def taken(self, core: SimCore, session_id: bytes, counter: int) -> None:
        """A Core begins to execute a request."""
        if (session_id, counter) in self._taken:
            self._apps.broken(10, f"{core.who.name} executes a request of a Gateway again")
        self._taken.add((session_id, counter))

    def opened(
        self, core: SimCore, gateway: Instance, tenant: str, keys: list[bytes], by: Sequence[Asked]
    ) -> None:
        """A Core opens keys for a Gateway, because of these asks."""
        name = core.who.name
        for wrapped, asked in zip(keys, [*by, *[None] * len(keys)], strict=False):
            made = self._made.get(asked.tag) if asked is not None else None
            said = f"{name} opens a key of {tenant} for {gateway.instance}"
            about = (name, gateway.instance, tenant, wrapped)
            if made is None or (made.core, made.gateway, made.tenant, made.wrapped) != about:
                self._apps.broken(10, f"{said}, for which no application asks it")
            elif core.clock.unix_ms() >= made.deadline_ms:
                self._apps.broken(10, f"{said}, for which {made.caller.app} asks no more")
            else:
                target = key_target(gateway.instance, gateway.public_key)
                self._apps.opened(made.caller, target, tenant, core.who.region, said)
