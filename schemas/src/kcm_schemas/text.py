"""Untrusted text, made safe for a terminal and for one line of a log."""

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


def _steers(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "C" or category in _LINES
