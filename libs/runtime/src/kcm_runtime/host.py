"""What the process of an instance gives to every part of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import random

from kcm_runtime.audit.port import Emit
from kcm_runtime.clock import Clock, Randomness
from kcm_runtime.instance import InstanceContext


@dataclass(frozen=True, slots=True)
class Host:
    """The instance's identity, its clock, its random numbers and its audit trail.

    ``randomness`` makes bytes that are not secret. ``chance`` returns a number from 0 to below 1;
    it spreads work over time, so it need not be unpredictable.
    """

    me: InstanceContext
    clock: Clock
    randomness: Randomness
    emit: Emit
    chance: Callable[[], float] = random
