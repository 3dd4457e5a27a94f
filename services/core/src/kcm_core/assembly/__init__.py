"""The composition of a Core: each part is made once, in short functions."""

from kcm_core.assembly.core import Core

__all__ = ["Core"]
