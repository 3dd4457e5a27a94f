"""The options of a development system."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kcm_deployment.members import Member
from kcm_killswitch.model.timing import Timing

from kcm_devsystem.clusters import Detour, direct
from kcm_devsystem.shape import Shape

REGIONS: Final = ("eu-de", "us-east")
"""The default regions."""


@dataclass(frozen=True, slots=True)
class Options:
    """The parts of a system, and its directory."""

    directory: Path
    regions: tuple[str, ...] = REGIONS
    cores: int = 2
    gateways: int = 1
    applications: int = 0
    """Applications in the first region that embed a Gateway. They get an identity and a
    configuration; the system does not start them."""
    timing: Timing = field(default_factory=Timing)
    """The durations of the kill switch, the same for every instance."""
    probes_per_s: float | None = None
    """Maximum root keys that a Core uses per second; ``None``: its default."""
    unsealer: Mapping[str, str] = field(default_factory=dict)
    """More variables for the Cores' unsealers, for example for a cloud's library."""
    nodes: Mapping[str, int] = field(default_factory=dict)
    """By region, the number of nodes of a broker that is a cluster."""
    audit_bytes: int | None = None
    """Bytes of each region's audit stream; ``None``: as ``stream_size`` decides."""
    detour: Detour = direct
    """The route of the brokers' links."""
    die_with_parent: bool = False
    """End all processes with the process that started them. Only its main thread can set this."""
    visitor: bool = False
    """Give each account of the brokers a user for whom nothing is refused: for tests."""
    watch: bool = False
    """Restart processes that end, until the system is stopped."""

    @property
    def shape(self) -> Shape:
        """The shape to store, without ports."""
        return Shape(
            regions=self.regions,
            cores=self.cores,
            gateways=self.gateways,
            applications=self.applications,
            nodes={region: number for region, number in self.nodes.items() if number != 1},
            watch=self.watch,
        )

    @property
    def members(self) -> list[Member]:
        """Every instance that the system starts."""
        return self.shape.members

    @property
    def embedded(self) -> list[Member]:
        """The Gateways inside applications."""
        return self.shape.embedded

    @property
    def everybody(self) -> list[Member]:
        """All instances on the roster."""
        return self.members + self.embedded
