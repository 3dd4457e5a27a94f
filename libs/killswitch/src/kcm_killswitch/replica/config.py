"""The part of an instance's configuration that the kill switch needs."""

from __future__ import annotations

from kcm_runtime.config import BusAddress, InstanceConfig

from kcm_killswitch.model.timing import Timing


class ReplicaConfig(InstanceConfig):
    """An instance that takes part in the kill switch: a Core or a Gateway."""

    control_bus: BusAddress
    timing: Timing = Timing()
    """The durations of the kill switch; they must be the same on every instance of the system."""
