"""An Auditor's configuration: the instance, its journal, and the regions that it follows."""

from __future__ import annotations

from kcm_runtime.config import BusAddress, InstanceConfig, PathBeside, Section
from kcm_schemas.names import Name
from pydantic import model_validator


class JournalSection(Section):
    """The place of the journal: its own directory, on a disk that keeps flushed data."""

    journal: PathBeside


class RegionBus(BusAddress):
    """The account of another region whose audit stream is followed, too."""

    region: Name


class AuditorConfig(InstanceConfig):
    """``region_bus`` is the Auditor's own region: it follows it and serves requests there."""

    auditor: JournalSection
    regions: tuple[RegionBus, ...] = ()

    @model_validator(mode="after")
    def _each_once(self) -> AuditorConfig:
        names = [entry.region for entry in self.regions]
        if len(set(names)) != len(names):
            raise ValueError("a region is listed twice")
        return self
