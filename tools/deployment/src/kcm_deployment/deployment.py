"""What a deployment consists of: its system, regions, servers, instances and operators."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kcm_broker.roles import Account
from kcm_trust.identity import ROOT

from kcm_deployment.errors import DeploymentError
from kcm_deployment.members import Member, Person

RESERVED: Final = frozenset({*Account, "ctl", "backbone", "links", "authority", "operators"})
"""Names that no region can have: of accounts, of authorities, and of directories."""

_OTHER_NAME: Final = "choose another name"


@dataclass(frozen=True, slots=True)
class Server:
    """One server of a broker: its name, and the host name by which the others reach it."""

    name: str
    host: str


@dataclass(frozen=True, slots=True)
class RegionPlan:
    """A region: the servers of its broker, and its instances.

    ``ca`` is the authority of the certificates that clients see, if it is not one of ours.
    """

    name: str
    servers: tuple[Server, ...]
    members: tuple[Member, ...]
    ca: Path | None = None


@dataclass(frozen=True, slots=True)
class Deployment:
    """A whole system. Each application gets a key and the credentials of every region."""

    system: str
    regions: tuple[RegionPlan, ...]
    backbone: tuple[Server, ...]
    operators: tuple[Person, ...]
    applications: tuple[str, ...] = ()
    development: bool = False

    def check_names(self) -> None:
        """Raise ``DeploymentError`` for a name that would mean something else, too."""
        for region in self.names:
            if region in RESERVED:
                raise DeploymentError(f"no region can be called {region}", hint=_OTHER_NAME)
        people = [one.name for one in self.members] + [one.name for one in self.operators]
        people += self.applications
        for name in people:
            if name == ROOT or people.count(name) > 1:
                raise DeploymentError(
                    f"only one key can have the name {name}, and {ROOT} is the operator root",
                    hint=_OTHER_NAME,
                )

    @property
    def members(self) -> tuple[Member, ...]:
        """Every instance of every region."""
        return tuple(member for region in self.regions for member in region.members)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the regions, in order."""
        return tuple(region.name for region in self.regions)

    @property
    def servers(self) -> Iterator[tuple[str, Server]]:
        """Every server of a region, with the region's name."""
        for region in self.regions:
            for server in region.servers:
                yield region.name, server
