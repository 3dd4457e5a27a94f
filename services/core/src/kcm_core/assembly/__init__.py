"""The composition of a Core: its parts, each made once, in functions of a screen."""

from kcm_core.assembly.core import Core

__all__ = ["Core"]
