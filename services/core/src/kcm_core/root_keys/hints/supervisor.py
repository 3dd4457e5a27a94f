"""Runs the listeners to cloud events next to the Core, and passes on the key names that they print.

A listener is a module of this package in a separate process, because a Core must not load the
libraries of clouds. It has the unsealer's environment. It prints one line for each hint: a key's
name in the form that the provider uses. A listener that ends is restarted, after a growing delay.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from kcm_runtime.error_text import describe
from kcm_runtime.logs import fields
from kcm_runtime.tasks import TaskSet

log = logging.getLogger(__name__)

NAME_MAX: Final = 512
"""Bytes of a line: an ARN, or the name of a resource."""

BACK_OFF_S: Final = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Seconds until a listener that ended is restarted; the last value applies to all further times."""

STOP_S: Final = 5.0
"""Seconds that a listener has to end."""

_PACKAGE: Final = "kcm_core.root_keys.hints."
_MODULE: Final = re.compile(r"[a-z0-9_]+")


class Listeners:
    """The listeners of one Core. ``commands`` are module names, each with its arguments."""

    def __init__(
        self,
        commands: Sequence[Sequence[str]],
        environment: Mapping[str, str],
        hinted: Callable[[str], None],
    ) -> None:
        """``hinted`` is called with the name of a key."""
        self._commands: Final = commands
        self._environment: Final = environment
        self._hinted: Final = hinted
        self._tasks: Final = TaskSet()

    def start(self) -> None:
        """Start all listeners."""
        for command in self._commands:
            self._tasks.spawn(self._keep(command))

    async def close(self) -> None:
        """End all listeners."""
        self._tasks.close()
        await self._tasks.join()

    async def _keep(self, command: Sequence[str]) -> None:
        failed = 0
        while not self._tasks.closed:
            try:
                heard = await self._listen(command)
                failed = 0 if heard else failed + 1
            except Exception as error:  # noqa: BLE001 - without hints a probe comes later, no more
                log.warning(
                    "a listener for hints: %s", describe(error), extra=fields(endpoint=command[0])
                )
                failed += 1
            log.warning(
                "a listener for hints ended and is started again",
                extra=fields(endpoint=command[0]),
            )
            await asyncio.sleep(BACK_OFF_S[min(failed, len(BACK_OFF_S) - 1)])

    async def _listen(self, command: Sequence[str]) -> int:
        """Run a listener until it ends; returns the number of its hints."""
        module, *arguments = command
        if _MODULE.fullmatch(module) is None:
            raise ValueError("a listener is a module of kcm_core.root_keys.hints")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-m", _PACKAGE + module, *arguments,
            env=dict(self._environment), stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, limit=4 * NAME_MAX,
        )  # fmt: skip
        assert process.stdout is not None
        heard = 0
        try:
            async for line in process.stdout:
                name = line.strip().decode("ascii", "replace")
                if 0 < len(name) <= NAME_MAX and name.isprintable():
                    heard += 1
                    self._hinted(name)
        finally:
            if process.returncode is None:
                process.terminate()
                try:
                    await asyncio.wait_for(process.wait(), STOP_S)
                except TimeoutError:
                    process.kill()
        await process.wait()
        return heard
