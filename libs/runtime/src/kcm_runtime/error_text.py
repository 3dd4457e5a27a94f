"""The text of an exception for a log line: where it was raised, and no value."""

from __future__ import annotations

import traceback


def describe(error: BaseException) -> str:
    """Return the class of an exception and its innermost frames, never its text or values."""
    frames = traceback.extract_tb(error.__traceback__)
    where = " < ".join(f"{f.name}:{f.lineno}" for f in reversed(frames[-4:]))
    return f"{type(error).__name__} at {where}"
