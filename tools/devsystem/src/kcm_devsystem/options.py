"""What a development system is asked to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kcm_killswitch.model.timing import Timing

from kcm_devsystem.clusters import Detour, direct
from kcm_devsystem.configs import DEFAULT_TIMING
from kcm_devsystem.identities import Member
from kcm_devsystem.shape import Shape

REGIONS: Final = ("eu-de", "us-east")
"""The regions of a system of which nobody says it."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to start, and where."""

    directory: Path
    regions: tuple[str, ...] = REGIONS
    cores: int = 2
    gateways: int = 1
    applications: int = 0
    """Applications in the first region that embed a Gateway: they get an identity and a
    configuration, and are started by somebody else."""
    timing: Timing = DEFAULT_TIMING
    """The durations of the kill switch, the same for every instance."""
    probes_per_s: float | None = None
    """Root keys that a Core uses a second at most; without it, as many as it does by itself."""
    unsealer: Mapping[str, str] = field(default_factory=dict)
    """More that the Cores' unsealers get: what a cloud's library needs."""
    nodes: Mapping[str, int] = field(default_factory=dict)
    """By region, the nodes of its broker where it is a cluster."""
    audit_bytes: int | None = None
    """Room for each region's audit stream; without it as ``stream_size`` decides."""
    detour: Detour = direct
    """The way that the brokers' links take."""
    die_with_parent: bool = False
    """End everything with the process that started it (only its main thread may ask)."""
    watch: bool = False
    """Start again whatever dies, until the system is ended."""

    @property
    def shape(self) -> Shape:
        """What is remembered of it; the ports are not known yet."""
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
        """Who is on the roster."""
        return self.members + self.embedded
