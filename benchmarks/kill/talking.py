"""A helper's side of its standard input and output: JSON in lines."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any


class Lines:
    """Lines from whoever started this process; they end when it ends."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    @classmethod
    async def open(cls) -> Lines:
        """Read standard input without a thread."""
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
        return cls(reader)

    async def next(self) -> dict[str, Any] | None:
        """The next one, or ``None`` at the end."""
        line = await self._reader.readline()
        if not line:
            return None
        heard: dict[str, Any] = json.loads(line)
        return heard


def say(**what: Any) -> None:
    """Write a line."""
    print(json.dumps(what), flush=True)
