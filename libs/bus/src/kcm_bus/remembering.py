"""Holds on a Core's own disk: one file for each, replaced whole.

A region's stream can be lost with every process that knew what was in it: one broker, one Core, one
power cut. Holds are few and small, so each Core keeps them itself and writes to the stream what it
lacks. Files hold signed statements and nothing secret; what was changed in one is not believed.

Nothing waits for the disk: a hold is in force before it is remembered, and is remembered a few
milliseconds later by a thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Final

from kcm_bus.config import ConfigError

log = logging.getLogger(__name__)

CLOSE_S: Final = 2.0
"""Seconds that the last files get when this process ends."""

_SUFFIX: Final = ".hold"


class HoldFiles:
    """``kcm_bus.ports.Memory`` in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory: Final = directory
        self._waiting: dict[bytes, bytes] = {}
        self._task: asyncio.Task[None] | None = None

    def recall(self) -> list[bytes]:
        """Every statement that is kept, in no order; raises ``ConfigError``.

        Whoever cannot read what it knew must not go on as if it knew nothing.
        """
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return [path.read_bytes() for path in self._directory.glob(f"*{_SUFFIX}")]
        except OSError as error:
            raise ConfigError(
                f"cannot use {self._directory}, which keeps known holds: {error.strerror}"
            ) from None

    def remember(self, hold_id: bytes, statement: bytes) -> None:
        """Keep what is known of a hold, soon; a later statement takes the place of this one."""
        self._waiting[hold_id] = statement
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._write_all())

    async def close(self) -> None:
        """Wait, for a short time, until what was said is kept."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=CLOSE_S)

    async def _write_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, {}
            try:
                await asyncio.to_thread(self._write, batch)
            except OSError as error:
                # The stream and the other Cores have them; this Core would forget them alone.
                log.error("%d holds are not kept on disk: %s", len(batch), error.strerror)

    def _write(self, batch: dict[bytes, bytes]) -> None:
        for hold_id, statement in batch.items():
            path = self._directory / f"{hold_id.hex()}{_SUFFIX}"
            fresh = path.with_suffix(".new")
            with fresh.open("wb") as file:
                file.write(statement)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        place = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(place)
        finally:
            os.close(place)


class NoMemory:
    """``kcm_bus.ports.Memory`` of whoever opens nothing without a Core."""

    def recall(self) -> list[bytes]:
        """Nothing."""
        return []

    def remember(self, hold_id: bytes, statement: bytes) -> None:
        """Nowhere."""

    async def close(self) -> None:
        """At once."""
