"""What can go wrong while a development system is started, found or ended."""

from __future__ import annotations


class DevError(Exception):
    """The development system cannot do that. The text is meant for a person and holds no secret."""


class ProcessDiedError(DevError):
    """A process ended before it was ready."""


class NotReadyError(DevError):
    """A process runs, but was not ready in time."""


class NoSystemError(DevError):
    """There is no development system where one was looked for."""


class ForeignDirectoryError(DevError):
    """The directory is somebody else's: a development system neither takes nor removes it."""
