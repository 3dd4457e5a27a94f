"""Errors of operations, with the exit code and hint that the ``kcm`` command shows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final

from kcm.exit_codes import Exit


class OperationError(Exception):
    """An operation is not possible. The text is for the operator and contains no secret.

    Each class has the command's exit code, the error's code and a hint; an error may have a hint of
    its own. ``log`` has the last lines of the log of the process that failed, if one did.
    """

    exit_code: ClassVar[Exit] = Exit.FAULT
    code: ClassVar[str] = "fault"
    hint: str = ""

    def __init__(self, text: str, log: Iterable[str] = (), *, hint: str = "") -> None:
        super().__init__(text)
        self.text: Final = text
        self.hint = hint or self.hint
        self.log: Final = tuple(log)

    def __str__(self) -> str:
        """Return the text, and the log's lines below it."""
        return "\n".join((self.text, *self.log))


BROKER_NEEDS: Final = "docs/deployment.md describes the broker that a region needs"
"""The hint for a broker that does not meet a requirement."""


class ProvisionError(OperationError):
    """The broker does not protect its streams and buckets as required."""

    hint = BROKER_NEEDS


class NotProvisionedError(ProvisionError):
    """A region's broker was not reached in time, or does not create the streams."""

    exit_code = Exit.UNAVAILABLE
    code = "unavailable"
    hint = "check the broker in the configuration, then give the same command again"
