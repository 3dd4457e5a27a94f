"""Arguments of the SDK, checked before anything is sent: which one is wrong, and where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kcm_schemas import limits
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.names import is_name


class BadArgument(KcmError):
    """An argument cannot be used. The program has to be changed."""

    def __init__(self, text: str, argument: str, index: int | None = None) -> None:
        super().__init__(Code.MALFORMED, text)
        self.argument: Final = argument
        """The argument's name."""
        self.index: Final = index
        """Where in the argument, counted from 0; none when it is the argument itself."""

    def __reduce__(self) -> tuple[type[BadArgument], tuple[str, str, int | None]]:
        return type(self), (self.detail, self.argument, self.index)


class BadType(BadArgument, TypeError):
    """An argument has another type than it has to have."""


class BadValue(BadArgument, ValueError):
    """An argument has a value that it must not have."""


def check_name(argument: str, value: object) -> None:
    """Raise unless it is a name."""
    if not isinstance(value, str):
        raise BadType(f"{argument} is {_type(value)}; it has to be str", argument)
    if not is_name(value):
        raise BadValue(
            f"{argument} {value[:80]!r} is no name: 1 to 63 characters of a-z, 0-9 and -",
            argument,
        )


def check_bytes(argument: str, values: object) -> None:
    """Raise unless it is a sequence of ``bytes``."""
    if isinstance(values, bytes | bytearray | memoryview | str) or not isinstance(values, Sequence):
        raise BadType(
            f"{argument} is {_type(values)}; it has to be a sequence of bytes, as a list", argument
        )
    for index, value in enumerate(values):
        if not isinstance(value, bytes):
            text = f"{argument}[{index}] is {_type(value)}; it has to be bytes"
            raise BadType(text, argument, index)


def bound(contexts: Sequence[bytes] | bytes | None, count: int) -> Sequence[bytes]:
    """What is bound to ``count`` records: nothing, one context for all, or one for each.

    A list has one for each, also where it has one or none: one that is too short by mistake would
    make records that open without what was meant, or not at all. Raises ``BadArgument``.
    """
    if contexts is None:
        return []
    shared = isinstance(contexts, bytes)
    values = [contexts] if isinstance(contexts, bytes) else contexts
    check_bytes("contexts", values)
    if not shared and len(values) != count:
        text = f"contexts has {len(values)} entries for {count} records; one for all is bytes"
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
    """Raise unless it is ``record`` or ``batch``."""
    if dek_scope not in ("record", "batch"):
        raise BadValue("dek_scope has to be 'record' or 'batch'", "dek_scope")


def check_deadline(deadline_s: object) -> None:
    """Raise unless it is a positive, finite number of seconds."""
    if isinstance(deadline_s, bool) or not isinstance(deadline_s, int | float):
        text = f"deadline_s is {_type(deadline_s)}; it has to be a number of seconds"
        raise BadType(text, "deadline_s")
    if not 0 < deadline_s < float("inf"):
        text = f"deadline_s is {deadline_s}; it has to be a positive number of seconds"
        raise BadValue(text, "deadline_s")


def _type(value: object) -> str:
    return type(value).__name__
