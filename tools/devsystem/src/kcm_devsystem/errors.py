"""Errors while a development system is started, found or ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from kcm.exit_codes import Exit
from kcm.ops.errors import OperationError


class DevError(OperationError):
    """The operation is not possible on the development system."""

    code = "dev"
    hint = "`kcm dev status` shows what runs"


class ProcessDiedError(DevError):
    """A process ended before it was ready."""

    hint = "correct what its log names, then `kcm dev up` starts it; `kcm dev status` names its log"


class NotReadyError(DevError):
    """A process runs but was not ready in time."""


class NoSystemError(DevError):
    """The directory has no development system."""

    exit_code = Exit.UNAVAILABLE
    code = "no_system"
    hint = "`kcm dev up` starts one"


class ForeignDirectoryError(DevError):
    """The directory is not a development system's, so it is neither used nor removed."""

    exit_code = Exit.USAGE
    code = "foreign_directory"
    hint = "name a new or empty directory, or that of a system, with --dir"


class OtherVersionError(DevError):
    """A file of the system has another version of its format, or none: nothing of it is read."""

    hint = (
        "use the kcm that made the system; or end it with that one, remove the directory, and make "
        "the system again"
    )

    def __init__(self, path: Path, found: int | None, known: int) -> None:
        what = "no version" if found is None else f"version {found}"
        super().__init__(f"{path} has {what} of its format; this kcm reads {known}")


class OtherShapeError(DevError):
    """The system has another shape than the one asked for; ``hint`` says what to do."""

    exit_code = Exit.USAGE
    code = "other_shape"

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(text)
        self.hint = hint


class ImpossibleShapeError(DevError):
    """The shape asked for is not possible."""

    exit_code = Exit.USAGE
    code = "usage"
    hint = "nothing was created; see --region and --nodes in `kcm dev up --help`"


class UnknownProcessError(DevError):
    """The system has no process of this name; ``names`` are its processes."""

    exit_code = Exit.USAGE
    code = "unknown_process"

    def __init__(self, name: str, names: Sequence[str]) -> None:
        super().__init__(f"the system has no process called {name}")
        self.names: Final = tuple(names)
        self.hint = f"there are: {', '.join(names)}"
