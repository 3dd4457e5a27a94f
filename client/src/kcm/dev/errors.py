"""What can go wrong while a development system is started, found or ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final


class DevError(Exception):
    """The development system cannot do that. The text is meant for a person and holds no secret."""


class ProcessDiedError(DevError):
    """A process ended before it was ready."""


class NotReadyError(DevError):
    """A process runs, but was not ready in time."""


class NotProvisionedError(DevError):
    """A region's broker was not reached in time, or does not make what it is asked for."""


class NoSystemError(DevError):
    """There is no development system where one was looked for."""


class ForeignDirectoryError(DevError):
    """The directory is somebody else's: a development system neither takes nor removes it."""


class OtherShapeError(DevError):
    """The system is not what was asked for; ``hint`` says what to do."""

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(text)
        self.hint: Final = hint


class ImpossibleShapeError(DevError):
    """What was asked for can be no system."""


class UnknownProcessError(DevError):
    """The system has no process of that name; ``names`` are those that it has."""

    def __init__(self, name: str, names: Sequence[str]) -> None:
        super().__init__(f"the system has no process called {name}")
        self.names: Final = tuple(names)
