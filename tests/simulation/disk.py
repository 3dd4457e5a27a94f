"""A machine's disk, on which a Core keeps the holds that it knows: it outlives every incarnation.

Production's ``FileHoldStore`` writes it. A new name lasts once the directory was written after it,
and a machine that loses its power before that has the name no more. A disk is full for a while, or
one write fails; what was there before stays as it was.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from kcm_killswitch.replica.hold_store import FileHoldStore

from tests.simulation.loop import SimLoop
from tests.simulation.nodes import Node

WRITE_S: Final = 0.02
"""Seconds until a write happens, at most; a crash before that loses it."""


class SimDisk:
    """One directory."""

    def __init__(self) -> None:
        self._lasting: dict[Path, bytes] = {}
        self._fresh: dict[Path, bytes] = {}
        """Written, under names that do not last yet."""
        self._archived: dict[bytes, bytes] = {}
        """Statements of holds that pages end."""
        self.state: Final[dict[str, bytes]] = {}
        """The instance's roster and lists."""
        self.full = False
        """Every write fails."""
        self.fails = 0
        """The next writes that fail, of files and of the directory alike."""
        self.failed = 0
        """Writes that did."""

    @property
    def statements(self) -> list[bytes]:
        """What outlives a power cut now."""
        return list(self._lasting.values())

    def read(self, _directory: Path) -> dict[Path, bytes]:
        """As ``kcm_killswitch.replica.hold_store.Read``."""
        return dict(sorted(self._lasting.items()))

    def write(self, path: Path, content: bytes) -> None:
        """As ``kcm_killswitch.replica.hold_store.Write``."""
        self._check()
        self._fresh[path] = content

    def sync(self, _directory: Path) -> None:
        """As ``kcm_killswitch.replica.hold_store.Sync``."""
        self._check()
        self._lasting |= self._fresh
        self._fresh = {}

    def remove(self, path: Path) -> None:
        """Remove a file; that it is gone lasts at once."""
        self._fresh.pop(path, None)
        self._lasting.pop(path, None)

    def put(self, statements: Mapping[bytes, bytes]) -> None:
        """As ``kcm_killswitch.replica.hold_archive.Archive``."""
        self._check()
        self._archived |= statements

    def get(self, hold_ids: Sequence[bytes]) -> dict[bytes, bytes]:
        """As ``kcm_killswitch.replica.hold_archive.Archive``."""
        return {one: self._archived[one] for one in hold_ids if one in self._archived}

    def between(self, least: bytes, most: bytes, count: int) -> dict[bytes, bytes]:
        """As ``kcm_killswitch.replica.hold_archive.Archive``."""
        found = sorted(one for one in self._archived if least <= one <= most)
        return {one: self._archived[one] for one in found[:count]}

    def keep_state(self, name: str, content: bytes) -> None:
        """Write a file of the instance's state, and its directory."""
        self._check()
        self.state[name] = content

    def lose_power(self) -> None:
        """What does not last is gone."""
        self._fresh = {}

    def mend(self) -> None:
        """There is room, and nothing fails any more."""
        self.full, self.fails = False, 0

    def _check(self) -> None:
        if self.full:
            self.failed += 1
            raise OSError(errno.ENOSPC, "full")
        if self.fails:
            self.fails -= 1
            self.failed += 1
            raise OSError(errno.EIO, "failed")


def hold_files(loop: SimLoop, node: Node, disk: SimDisk) -> FileHoldStore:
    """Production's hold store of one incarnation, over its machine's disk."""

    async def run(work: Callable[[], Any]) -> Any:
        done = loop.create_future()

        def write() -> None:
            if not node.dead:
                done.set_result(work())

        loop.after(WRITE_S * loop.random.random(), write)
        return await done

    return FileHoldStore(
        Path("holds"),
        write=disk.write,
        sync=disk.sync,
        read=disk.read,
        remove=disk.remove,
        archive=disk,
        run=run,
    )
