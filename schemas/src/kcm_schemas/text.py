"""Texts: untrusted ones, made safe for a terminal and for one line of a log, and counts."""

from __future__ import annotations

import unicodedata
from typing import Final

CHARACTERS_MAX: Final = 4096
"""Characters that are kept of an untrusted text."""

_LINES: Final = ("Zl", "Zp")
"""Separators of lines and paragraphs; the others are control characters."""


def printable(text: str) -> str:
    """Return the text with control characters and line breaks replaced, and truncated."""
    if len(text) <= CHARACTERS_MAX and text.isprintable():
        return text
    shown = "".join(
        "\N{REPLACEMENT CHARACTER}" if _steers(character) else character
        for character in text[:CHARACTERS_MAX]
    )
    return shown if len(text) <= CHARACTERS_MAX else f"{shown}…"


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun. ``many`` is the plural [default: ``one`` with an s]."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def _steers(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "C" or category in _LINES
