"""The garbage collector of a process: it must not look again and again through what is loaded.

A component loads modules with tens of thousands of objects, which stay until the process ends. With
Python's defaults the collector takes a sixth of the time of a start and an end.
"""

from __future__ import annotations

import atexit
import gc
from typing import Final

OBJECTS: Final = 50_000
"""New objects after which the collector looks for garbage: more than loading creates."""


def collect_seldom() -> None:
    """Collect garbage less often, and not at the end. The first call of a composition root.

    Only reference cycles wait for the collector. No key is in one: keys are in locked memory, and
    their owner wipes it.
    """
    gc.set_threshold(OBJECTS)
    atexit.register(gc.freeze)
