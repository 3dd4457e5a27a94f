"""What a development system consists of, and on which ports: ``shape.json`` in its directory.

It is written before the first process starts, so that whoever comes later knows what there is to be
found, and the same system comes up again on the same ports. A system may grow while it is down: by
regions behind the ones that it has, by Cores and by Gateways. Nothing else of it changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from kcm_schemas.names import Name
from kcm_schemas.roster import Role
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kcm_devsystem.errors import DevError, OtherShapeError
from kcm_devsystem.files import write_private
from kcm_devsystem.identities import Member

FILE: Final = "shape.json"
"""Its name in the development system's directory."""
BYTES_MAX: Final = 1 << 20
"""Bytes in the file: some thousand regions."""

KEEP: Final = (
    "leave the option out to get what is there; `kcm dev down --wipe` removes the system and its "
    "keys, --dir names another one"
)
"""What to do where a system cannot be made what was asked for."""
LATER: Final = "`kcm dev down`, then the same command"
"""What to do where it can, but not while it runs."""


class Shape(BaseModel):
    """Regions in their order, numbers of instances, brokers' nodes, and every port by its name."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Annotated[int, Field(ge=1, le=1)] = 1
    """Of the file's format; another one is refused."""
    regions: Annotated[tuple[Name, ...], Field(min_length=1)]
    cores: Annotated[int, Field(ge=0)]
    """In each region; ``gateways`` too."""
    gateways: Annotated[int, Field(ge=0)]
    applications: Annotated[int, Field(ge=0)] = 0
    """Gateways of the first region that somebody else embeds."""
    nodes: Mapping[str, int] = {}
    """By region, the nodes of its broker where it is a cluster."""
    watch: bool = False
    """Whether a watcher starts again whatever dies."""
    ports: Mapping[str, Annotated[int, Field(ge=1, le=65535)]] = {}
    """As ``topology.ports`` names them."""

    @property
    def members(self) -> list[Member]:
        """Every instance; the one Auditor lives in the first region."""
        return [
            *(
                Member(role, region, number)
                for region in self.regions
                for role, count in ((Role.CORE, self.cores), (Role.GATEWAY, self.gateways))
                for number in range(1, count + 1)
            ),
            Member(Role.AUDITOR, self.regions[0], 1),
        ]

    @property
    def embedded(self) -> list[Member]:
        """The Gateways inside applications."""
        first = self.gateways + 1
        return [
            Member(Role.GATEWAY, self.regions[0], number)
            for number in range(first, first + self.applications)
        ]

    def nodes_of(self, region: str) -> int:
        """Servers of a region's broker."""
        return self.nodes.get(region, 1)


@dataclass(frozen=True, slots=True)
class _Difference:
    asked: str
    """As an option."""
    was: str
    grows: bool


def agreed(asked: Shape, known: Shape | None, *, runs: bool) -> Shape:
    """What is asked for, on the ports that are known.

    Raises ``OtherShapeError`` where the system is another one, and where it ``runs`` and would
    have to grow.
    """
    if known is None:
        return asked
    for one in _differences(asked, known):
        if not one.grows:
            raise OtherShapeError(f"{one.asked}: the system was made with {one.was}", KEEP)
        if runs:
            raise OtherShapeError(f"{one.asked}: the system runs with {one.was}", LATER)
    return asked.model_copy(update={"ports": known.ports})


def _differences(asked: Shape, known: Shape) -> Iterator[_Difference]:
    if asked.regions != known.regions:
        grows = asked.regions[: len(known.regions)] == known.regions
        yield _Difference(_regions(asked), _regions(known), grows)
    for region in known.regions:
        before, after = known.nodes_of(region), asked.nodes_of(region)
        if before != after:
            was, now = f"--nodes {region}={before}", f"--nodes {region}={after}"
            yield _Difference(now, was, grows=False)
    for option, before, after in (
        ("--cores", known.cores, asked.cores),
        ("--gateways", known.gateways, asked.gateways),
        ("applications", known.applications, asked.applications),
    ):
        if before != after:
            yield _Difference(f"{option} {after}", f"{option} {before}", after > before)
    if known.watch and not asked.watch:
        yield _Difference("--no-watch", "--watch", grows=True)


def _regions(shape: Shape) -> str:
    return " ".join(f"--region {region}" for region in shape.regions)


def save(directory: Path, shape: Shape) -> None:
    """Replace the directory's shape file, and make it last."""
    write_private(directory / FILE, shape.model_dump_json(indent=2) + "\n")


def load(directory: Path) -> Shape | None:
    """Read the directory's shape file; None when there is none.

    Raises ``DevError`` for a file that this version did not write.
    """
    path = directory / FILE
    try:
        with path.open("rb") as file:
            raw = file.read(BYTES_MAX + 1)
        return Shape.model_validate_json(raw)
    except FileNotFoundError:
        return None
    except ValidationError:
        raise DevError(
            f"{path} is not a shape file of this version; without it, `kcm dev down` ends what is "
            "recorded"
        ) from None
