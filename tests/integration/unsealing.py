"""What the tests of the unsealer share: waiting for conditions, looking at processes, a FIFO."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from kcm_core.providers.state import L1Error, L1State
from kcm_core.unsealer.servers import Servers, fork_servers

PATIENCE_S = 60.0
"""Seconds after which a condition that has not come true is a failure; nothing is slept away."""


class SharedServers(Servers):
    """Fork servers that outlive the unsealers that use them: the SDK is imported once."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        own = fork_servers(environment)
        super().__init__(own.make, own.first)

    async def close(self) -> None:
        """Leave them to the next unsealer."""

    async def end(self) -> None:
        """Close them."""
        await super().close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - about other processes, which set no event
            await asyncio.sleep(0.005)


async def failure(operation) -> L1Error:
    with pytest.raises(L1Error) as caught:
        await operation
    return caught.value


def children(pid: int) -> set[int]:
    """The living children of a process."""
    assert Path("/proc/self/task").joinpath(str(os.getpid()), "children").exists()
    found: set[int] = set()
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found.update(map(int, (thread / "children").read_text().split()))
    return {child for child in found if not gone(child)}


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def flip(directory: Path, state: L1State) -> None:
    """Put a state into a softkey, in one step, whatever stands there now."""
    fresh = directory / "state.new"
    fresh.write_text(f"{state.value}\n")
    fresh.rename(directory / "state")


@contextmanager
def hanging(directory: Path) -> Iterator[None]:
    """Make a softkey that never answers: its state is a FIFO into which nobody writes.

    Afterwards it is enabled, and whoever still reads the FIFO is let go with nothing.
    """
    os.mkfifo(directory / "fifo")
    (directory / "fifo").rename(directory / "state")
    keep = directory / "kept"
    os.link(directory / "state", keep)
    try:
        yield
    finally:
        flip(directory, L1State.ENABLED)
        os.close(os.open(keep, os.O_RDWR | os.O_NONBLOCK))
        keep.unlink()
