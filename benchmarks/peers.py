"""Peers take their turns in a child process, in the same rounds as everybody else.

Their environment is made by ``make bench-peers``; without it they are left out, and the report says
so.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.engine import SIZES
from benchmarks.measure import Turn

ROOT: Final = Path(__file__).parent.parent
PYTHON: Final = ROOT / ".venv-peers" / "bin" / "python"
ABSENT: Final = "not installed: make bench-peers"


@dataclass(frozen=True, slots=True)
class Peers:
    """Versions by name, and turns by operation and size; both empty where there is nobody."""

    versions: Mapping[str, str]
    turns: Mapping[tuple[str, str], Mapping[str, Turn]]


@asynccontextmanager
async def peers(calls_max: int, python: str = str(PYTHON)) -> AsyncIterator[Peers]:
    """Start the child, if its environment is there, and end it at the end."""
    if not os.access(python, os.X_OK):
        yield Peers({}, {})
        return
    process = await asyncio.create_subprocess_exec(
        python,
        Path(__file__).with_name("peer_worker.py"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={},
    )
    try:
        versions = await _line(process)
        turns = {
            (operation, size): {
                name: _turn(process, name, operation, size, calls_max) for name in versions
            }
            for operation in ("encrypt", "decrypt")
            for size in SIZES
        }
        yield Peers(versions, turns)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _turn(
    process: asyncio.subprocess.Process, name: str, operation: str, size: str, calls_max: int
) -> Turn:
    octets, records, calls = SIZES[size]
    asked = {
        "peer": name,
        "operation": operation,
        "octets": octets,
        "records": records,
        "calls": min(calls, calls_max),
    }

    async def turn() -> list[float]:
        assert process.stdin is not None
        process.stdin.write(json.dumps(asked).encode() + b"\n")
        await process.stdin.drain()
        return [float((await _line(process))["seconds"])]

    return turn


async def _line(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError("the peers' process ended; run it by hand to see why")
    found: dict[str, Any] = json.loads(line)
    return found
