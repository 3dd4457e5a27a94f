"""Randomness for components that generate keys: it goes straight into locked memory."""

from __future__ import annotations

import os
from typing import Protocol

from kcm_keymem.pages import fill_random


class KeyRandomness(Protocol):
    """The source of nonces and keys; a port, so that a simulation can replace it."""

    def public(self, size: int) -> bytes:
        """Return random bytes that are not secret: nonces, identifiers."""
        ...

    def fill(self, view: memoryview) -> None:
        """Fill locked memory with key material."""
        ...


class SystemKeyRandomness:
    """The kernel's random number generator."""

    def public(self, size: int) -> bytes:
        """Return random bytes that are not secret."""
        return os.urandom(size)

    def fill(self, view: memoryview) -> None:
        """Fill locked memory without an intermediate copy."""
        fill_random(view)
