"""The system that a command is about, and commands in hints that are about the same one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Final

from kcm._internal.client_files import CONTEXT, ENVIRONMENT
from kcm.cli.error_report import Problem
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm.cli.settings import Settings

ROOT_KEY: Final = Path("keys") / "root"
"""The operator root's private key, which only a development system has beside its context."""

_COMMAND: Final = re.compile(r"(?<=\x60kcm )(dev )?([^\x60]*)")
"""A command between backquotes, without its first word."""


def chosen(settings: Settings, directory: Path | None, *, new: bool = False) -> Path:
    """Return the directory given, else that of the chosen context, else the default.

    With ``new``, the context need not exist yet: a system that is made has it.
    """
    from kcm_devsystem import system

    if directory is not None:
        return directory
    named = settings.context_file or _of_environment()
    if not named:
        return system.default_directory()
    if new and Path(named).name == CONTEXT and not Path(named).exists():
        return Path(named).absolute().parent
    path = settings.context().path.resolve()
    if not (path.parent / ROOT_KEY).exists():
        raise Problem(
            Exit.USAGE,
            "context",
            f"{path} is not the context of a development system",
            "name a system's directory with --dir, or its context with --context",
        )
    return path.parent


def used_alone(place: Path) -> bool:
    """Whether commands without ``--dir`` and ``--context`` are about the system in ``place``."""
    from kcm_devsystem import system

    named = _of_environment()
    alone = Path(named).parent if named else system.default_directory()
    return alone.resolve() == place.resolve()


def working(place: Path, hint: str) -> str:
    """Return a hint whose commands are about the system in ``place``."""
    if used_alone(place):
        return hint
    of_dev, of_others = (
        f" --dir {quote(str(place))}",
        f" --context {quote(str(place / CONTEXT))}",
    )

    def named(found: re.Match[str]) -> str:
        dev, rest = found.group(1) or "", found.group(2)
        if "--help" in rest:
            return found.group()
        return f"{dev}{rest}{of_dev if dev else of_others}"

    return _COMMAND.sub(named, hint)


@contextmanager
def working_hints(place: Path) -> Iterator[None]:
    """Make the hints of errors name the system in ``place``, if commands alone do not."""
    from kcm_devsystem.errors import DevError

    try:
        yield
    except DevError as error:
        error.hint = working(place, error.hint)
        raise


def _of_environment() -> str:
    return os.environ.get(ENVIRONMENT, "")
