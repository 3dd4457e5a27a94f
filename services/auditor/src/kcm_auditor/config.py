"""An Auditor's configuration: an instance's, its journal, and the regions that it follows."""

from __future__ import annotations

from pathlib import Path

from kcm_runtime.config import BusAddress, InstanceConfig, Section
from kcm_schemas.names import Name
from pydantic import model_validator


class JournalSection(Section):
    """Where the journal is: a directory of its own, on a disk that keeps what was flushed."""

    journal: Path


class RegionBus(BusAddress):
    """The account of another region whose audit stream is followed too."""

    region: Name


class AuditorConfig(InstanceConfig):
    """``region_bus`` is the Auditor's own region: followed always, and where it answers."""

    auditor: JournalSection
    regions: tuple[RegionBus, ...] = ()

    @model_validator(mode="after")
    def _each_once(self) -> AuditorConfig:
        names = [entry.region for entry in self.regions]
        if len(set(names)) != len(names):
            raise ValueError("a region is named twice")
        return self
