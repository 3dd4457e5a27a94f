"""Ownership of an object with connections: the process and the event loop that made it.

After a fork, a connection is shared with the parent, and its use from another event loop waits for
ever. A child does not receive kills, either. So every use is checked and a wrong one is refused.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Final, Generic, TypeVar

from kcm_schemas.codes import Code, KcmError

T = TypeVar("T")


class Misuse(KcmError, RuntimeError):
    """The program uses an object in a way that cannot work. A retry does not help."""

    def __init__(self, text: str) -> None:
        super().__init__(Code.INTERNAL, text)

    def __reduce__(self) -> tuple[type[Misuse], tuple[str]]:
        return type(self), (self.detail,)


class WrongLoop(Misuse):
    """Used from another event loop or thread than the one that made it."""


class AfterFork(Misuse):
    """Used in a process that was forked from the one that connected."""


class Closed(Misuse):
    """Used after ``close``."""


class AlreadyConnected(Misuse):
    """One ``connect()`` or ``join()`` was entered twice."""


class Owner:
    """The process and the event loop to which an object belongs."""

    def __init__(self, what: str) -> None:
        """``what`` names the object in texts. It belongs to the calling process."""
        self._what: Final = what
        self._pid: Final = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def elsewhere(self) -> bool:
        """Whether this is a child of the process that made the object."""
        return os.getpid() != self._pid

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    def close(self) -> None:
        """Refuse every use from now on."""
        self._closed = True

    def check(self) -> None:
        """Raise ``Misuse`` unless this process and event loop own it; the first loop owns it."""
        if self.elsewhere:
            raise AfterFork(
                f"{self._what} was made in process {self._pid} and is used in its child"
                f" {os.getpid()}; connect in each process after the fork"
            )
        if self._closed:
            raise Closed(f"{self._what} is closed; connect again")
        running = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = running
        elif self._loop is not running:
            raise WrongLoop(
                f"{self._what} belongs to another event loop; make one in each loop, or use"
                " kcm.sync.Client, which threads may share"
            )


class Once(AbstractAsyncContextManager[T], Generic[T]):
    """An asynchronous context manager that refuses a second entry."""

    def __init__(self, what: str, run: Callable[[], AsyncGenerator[T, None]]) -> None:
        """``what`` names the call in texts; ``run`` yields the object once."""
        self._what: Final = what
        self._inner: Final = asynccontextmanager(run)()
        self._entered = False

    async def __aenter__(self) -> T:
        if self._entered:
            raise AlreadyConnected(f"{self._what} was entered already; call {self._what} again")
        self._entered = True
        return await self._inner.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return await self._inner.__aexit__(kind, error, trace)
