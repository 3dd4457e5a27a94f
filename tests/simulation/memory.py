"""A Core's disk: ``kcm_bus.ports.Memory``. It outlives every boot, and is written a little late."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from kcm_bus.ports import Unkept

from tests.simulation.nodes import Node

if TYPE_CHECKING:
    from tests.simulation.loop import SimLoop

WRITE_S: Final = 0.02
"""Seconds that a write takes at most; a crash before that loses it."""


class SimMemory:
    """What one boot of a Core reads from, and writes to, its machine's disk."""

    def __init__(
        self, loop: SimLoop, node: Node, disk: dict[bytes, bytes], archive: dict[bytes, bytes]
    ) -> None:
        self._loop: Final = loop
        self._node: Final = node
        self._disk: Final = disk
        self._latest: dict[bytes, bytes] = {}
        self._archive: Final = archive
        self._changed: Callable[[bytes], None] | None = None

    @property
    def unkept(self) -> Mapping[bytes, Unkept]:
        return {}

    def kept(self, hold_id: bytes, statement: bytes) -> bool:
        return self._disk.get(hold_id) == statement

    def listen(self, changed: Callable[[bytes], None]) -> None:
        self._changed = changed

    def recall(self) -> list[bytes]:
        return [self._disk[hold_id] for hold_id in sorted(self._disk)]

    def remember(self, hold_id: bytes, statement: bytes) -> None:
        self._latest[hold_id] = statement
        self._loop.after(WRITE_S * self._loop.random.random(), self._write, hold_id)

    def archive(self, hold_id: bytes, statement: bytes) -> None:
        self._loop.after(2 * WRITE_S, self._put_away, hold_id, statement)

    def archived(self, hold_ids: Sequence[bytes]) -> dict[bytes, bytes]:
        return {one: self._archive[one] for one in hold_ids if one in self._archive}

    def archived_between(self, least: bytes, most: bytes, count: int) -> dict[bytes, bytes]:
        found = sorted(one for one in self._archive if least <= one <= most)
        return {one: self._archive[one] for one in found[:count]}

    async def close(self) -> None:
        """Nothing waits."""

    def _write(self, hold_id: bytes) -> None:
        if not self._node.dead:
            self._disk[hold_id] = self._latest[hold_id]
            if self._changed is not None:
                self._changed(hold_id)

    def _put_away(self, hold_id: bytes, statement: bytes) -> None:
        if not self._node.dead:
            self._archive[hold_id] = statement
            self._disk.pop(hold_id, None)
