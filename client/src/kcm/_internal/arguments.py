"""Checks of the SDK's arguments, before anything is sent. Errors name the argument and index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kcm_schemas import limits
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.names import is_name
from kcm_schemas.text import counted


class BadArgument(KcmError):
    """An argument is not valid. The program has a defect."""

    def __init__(self, text: str, argument: str, index: int | None = None) -> None:
        super().__init__(Code.MALFORMED, text)
        self.argument: Final = argument
        """The argument's name."""
        self.index: Final = index
        """The index in the argument, from 0; ``None`` for the argument as a whole."""

    def __reduce__(self) -> tuple[type[BadArgument], tuple[str, str, int | None]]:
        return type(self), (self.detail, self.argument, self.index)


class BadType(BadArgument, TypeError):
    """An argument has the wrong type."""


class BadValue(BadArgument, ValueError):
    """An argument has a value that is not valid."""


def check_name(argument: str, value: object) -> None:
    """Raise ``BadArgument`` unless ``value`` is a name."""
    if not isinstance(value, str):
        raise BadType(f"{argument} is {_type(value)}; it has to be str", argument)
    if not is_name(value):
        raise BadValue(
            f"{argument} {value[:80]!r} is not a name: 1 to 63 characters of a-z, 0-9 and -",
            argument,
        )


def check_bytes(argument: str, values: object) -> None:
    """Raise ``BadType`` unless ``values`` is a sequence of ``bytes``."""
    if isinstance(values, bytes | bytearray | memoryview | str) or not isinstance(values, Sequence):
        raise BadType(
            f"{argument} is {_type(values)}; it has to be a sequence of bytes, as a list", argument
        )
    for index, value in enumerate(values):
        if not isinstance(value, bytes):
            text = f"{argument}[{index}] is {_type(value)}; it has to be bytes"
            raise BadType(text, argument, index)


def bound(contexts: Sequence[bytes] | bytes | None, count: int) -> Sequence[bytes]:
    """Return the contexts of ``count`` records: none, one for all, or one for each.

    A list has one entry for each record, also if it has one entry or none. A list that is too short
    by mistake would bind records to the wrong context. Raises ``BadArgument``.
    """
    if contexts is None:
        return []
    shared = isinstance(contexts, bytes)
    values = [contexts] if isinstance(contexts, bytes) else contexts
    check_bytes("contexts", values)
    if not shared and len(values) != count:
        entries = counted(len(values), "entry", "entries")
        text = f"contexts has {entries} for {counted(count, 'record')}; one for all is bytes"
        raise BadValue(text, "contexts")
    for index, value in enumerate(values):
        if len(value) > limits.APP_CONTEXT_MAX:
            raise BadValue(
                f"contexts[{index}] has {len(value)} bytes; at most {limits.APP_CONTEXT_MAX}",
                "contexts",
                None if shared else index,
            )
    return values


def check_scope(dek_scope: object) -> None:
    """Raise ``BadValue`` unless ``dek_scope`` is ``record`` or ``batch``."""
    if dek_scope not in ("record", "batch"):
        raise BadValue("dek_scope has to be 'record' or 'batch'", "dek_scope")


def check_deadline(deadline_s: object) -> None:
    """Raise ``BadArgument`` unless ``deadline_s`` is a positive, finite number of seconds."""
    if isinstance(deadline_s, bool) or not isinstance(deadline_s, int | float):
        text = f"deadline_s is {_type(deadline_s)}; it has to be a number of seconds"
        raise BadType(text, "deadline_s")
    if not 0 < deadline_s < float("inf"):
        text = f"deadline_s is {deadline_s}; it has to be a positive number of seconds"
        raise BadValue(text, "deadline_s")


def _type(value: object) -> str:
    return type(value).__name__
