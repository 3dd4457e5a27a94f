"""Results as a table, or as JSON for a program (bytes in hexadecimal)."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kcm.cli.error_report import Problem, cannot_show, clean
from kcm.cli.streams import give_up, is_closed, is_terminal, tell
from kcm.cli.table_layout import laid_out
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm.cli.settings import Settings


WIDTH: Final = 160
"""Characters per line of a table in a file, so that few texts wrap."""


def plain(value: Any) -> Any:
    """Convert messages, dataclasses, bytes and enumerations to JSON types."""
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else plain(_fields(value))


def _fields(value: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return dict(vars(value))


def emit(
    settings: Settings, value: Any, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Show ``value`` as JSON, or ``rows`` under ``columns`` as a table."""
    parts = settings.world.parts
    if settings.json and parts is not None:
        parts.append(value)
        return
    if settings.json:
        say(json.dumps(plain(value), indent=2) + "\n")
        return
    from rich.console import Console

    width = None if is_terminal(sys.stdout) else WIDTH
    console = Console(file=sys.stdout, width=width)
    with console.capture() as shown:
        console.print(laid_out(columns, rows, console.width))
    say(shown.get())


@contextmanager
def one_document(settings: Settings, *names: str) -> Iterator[None]:
    """Show the results that follow as one JSON object, in this order; a failure leaves some out."""
    parts = settings.world.parts = list[Any]()
    try:
        yield
    finally:
        settings.world.parts = None
        if parts:
            emit(settings, dict(zip(names, parts, strict=False)), (), ())


def say(text: str) -> None:
    """Write a part of the result to stdout, at once; raises ``Problem``."""
    if is_closed(sys.stdout):
        raise Problem(
            Exit.FAULT, "io", "cannot write stdout: it is closed",
            "redirect it to a file, or to /dev/null",
        )  # fmt: skip
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        give_up(sys.stdout)
        raise cannot_show(error) from None


def refuse_closed() -> None:
    """Raise ``Problem`` if stdout is closed, before anything is changed."""
    if is_closed(sys.stdout):
        raise Problem(
            Exit.USAGE, "usage", "cannot write stdout: it is closed",
            "nothing was done; redirect it to a file, or to /dev/null",
        )  # fmt: skip


def moment(unix_ms: int) -> str:
    """Return a time in UTC as text."""
    try:
        return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return f"{unix_ms} ms"


def note(settings: Settings, text: str, **fields: object) -> None:
    """Print a text to stderr, or ``fields`` as one line of JSON if the output is JSON."""
    line = json.dumps(plain(fields)) if settings.json else clean(text)
    tell(line)


def advise(settings: Settings, hint: str) -> None:
    """Print a hint about a result that is shown already and not as it should be."""
    note(settings, f"hint: {hint}", hint=hint)
