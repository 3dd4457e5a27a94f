"""What can go wrong while a development system is started, found or ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kcm.exit_codes import Exit
from kcm.ops.errors import OperationError


class DevError(OperationError):
    """The development system cannot do that."""

    code = "dev"
    hint = "`kcm dev status` shows what runs"


class ProcessDiedError(DevError):
    """A process ended before it was ready."""


class NotReadyError(DevError):
    """A process runs, but was not ready in time."""


class NoSystemError(DevError):
    """There is no development system where one was looked for."""

    exit_code = Exit.UNAVAILABLE
    code = "no_system"
    hint = "`kcm dev up` starts one"


class ForeignDirectoryError(DevError):
    """The directory is somebody else's: a development system neither takes nor removes it."""

    exit_code = Exit.USAGE
    code = "foreign_directory"
    hint = "name a new or empty directory, or that of a system, with --dir"


class OtherShapeError(DevError):
    """The system is not what was asked for; ``hint`` says what to do."""

    exit_code = Exit.USAGE
    code = "other_shape"

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(text)
        self.hint = hint


class ImpossibleShapeError(DevError):
    """What was asked for can be no system."""

    exit_code = Exit.USAGE
    code = "usage"
    hint = "nothing was made; `kcm dev up --help` says what --region and --nodes take"


class UnknownProcessError(DevError):
    """The system has no process of that name; ``names`` are those that it has."""

    exit_code = Exit.USAGE
    code = "unknown_process"

    def __init__(self, name: str, names: Sequence[str]) -> None:
        super().__init__(f"the system has no process called {name}")
        self.names: Final = tuple(names)
        self.hint = f"there are: {', '.join(names)}"
