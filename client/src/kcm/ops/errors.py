"""Errors of operations that explain themselves to the ``kcm`` command."""

from __future__ import annotations

from typing import ClassVar

from kcm.exit_codes import Exit


class OperationError(Exception):
    """An operation cannot be done. The text is meant for a person and holds no secret.

    Each class says how a command ends with it: the exit code, the error's code and what to do.
    """

    exit_code: ClassVar[Exit] = Exit.FAULT
    code: ClassVar[str] = "fault"
    hint: str = ""


class ProvisionError(OperationError):
    """The broker does not protect what it stores."""


class NotProvisionedError(ProvisionError):
    """A region's broker was not reached in time, or does not make what it is asked for."""

    exit_code = Exit.UNAVAILABLE
    code = "unavailable"
    hint = "the configuration names the broker; the same command again goes on"
