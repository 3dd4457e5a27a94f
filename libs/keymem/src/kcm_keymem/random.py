"""Randomness for those who make keys: key material goes straight into locked memory."""

from __future__ import annotations

import os
from typing import Protocol

from kcm_keymem.pages import fill_random


class KeyRandomness(Protocol):
    """Where nonces and keys come from; a port, so that simulation can decide."""

    def public(self, size: int) -> bytes:
        """Random bytes that are not secret: nonces, identifiers."""
        ...

    def fill(self, view: memoryview) -> None:
        """Fill locked memory with key material."""
        ...


class SystemKeyRandomness:
    """The kernel's randomness."""

    def public(self, size: int) -> bytes:
        """Random bytes that are not secret."""
        return os.urandom(size)

    def fill(self, view: memoryview) -> None:
        """Fill locked memory without a copy in between."""
        fill_random(view)
