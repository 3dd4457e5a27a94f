"""Text that came from outside, made fit for a terminal and for one line of a log."""

from __future__ import annotations

import unicodedata
from typing import Final

CHARACTERS_MAX: Final = 4096
"""Characters of a text from outside that are shown."""

_LINES: Final = ("Zl", "Zp")
"""Separators of lines and paragraphs: the other ones are control characters."""


def printable(text: str) -> str:
    """The text without what may steer a terminal or begin another line, and bounded."""
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
