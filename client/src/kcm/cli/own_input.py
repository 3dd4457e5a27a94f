"""A command does not replace a file that it reads."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from kcm.cli.error_report import Problem
from kcm.cli.input_file import STDIN
from kcm.cli.output_file import STDOUT
from kcm.cli.streams import is_closed
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from typing import TextIO


def refuse_own_input(output: str, inputs: Iterable[str | Path], option: str = "-o") -> None:
    """Raise ``Problem`` if the output is one of the inputs, under any name.

    Devices and pipes may be both. ``option`` names the output.
    """
    there = _stdout() if output == STDOUT else _file(output)
    if there is None:
        return
    for one in inputs:
        here = _stdin() if one == STDIN else _file(one)
        if here is not None and os.path.samestat(here, there):
            name = "stdout" if output == STDOUT else output
            raise Problem(
                Exit.USAGE, "usage", f"{name} is the file that the command reads",
                f"nothing was done; name another file with {option}",
            )  # fmt: skip


def _file(name: str | Path) -> os.stat_result | None:
    """Return the state of a regular file or disk; ``None`` for all else, and if there is none."""
    try:
        return _stored(os.stat(name))  # noqa: PTH116 - a name that Path would change
    except (OSError, ValueError):
        return None  # reported when it is opened


def _stdin() -> os.stat_result | None:
    return None if is_closed(sys.stdin) else _stream(sys.stdin)


def _stdout() -> os.stat_result | None:
    return None if is_closed(sys.stdout) else _stream(sys.stdout)


def _stream(stream: TextIO) -> os.stat_result | None:
    try:
        return _stored(os.fstat(stream.fileno()))
    except (OSError, ValueError):
        return None


def _stored(info: os.stat_result) -> os.stat_result | None:
    return info if stat.S_ISREG(info.st_mode) or stat.S_ISBLK(info.st_mode) else None
