"""The parts of a development system and their ports: ``shape.json`` in its directory.

The file is written before the first process starts. A later command finds all parts by it, and the
same system starts again on the same ports. While a system is down it may grow: by regions after the
existing ones, by Cores and by Gateways. Nothing else can change.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from kcm_deployment.members import Member
from kcm_runtime.files.private_files import write_private
from kcm_schemas.names import Name
from kcm_schemas.roster import Role
from pydantic import BaseModel, ConfigDict, Field

from kcm_devsystem.errors import DevError, OtherShapeError, OtherVersionError
from kcm_devsystem.identities import APP

FILE: Final = "shape.json"
"""The file's name in the development system's directory."""

VERSION: Final = 2
"""The version of the file's format, and of what the system's brokers store. In version 1 the
entries of control streams had other names, so a system of that version cannot be continued."""

BYTES_MAX: Final = 1 << 20
"""Bytes in the file: some thousand regions."""

KEEP: Final = (
    "leave the option out to keep the system as it is; `kcm dev down --wipe` removes it and its "
    "keys; --dir names another one"
)
"""The hint if a system cannot be changed to what was asked for."""
LATER: Final = "`kcm dev down`, then the same command"
"""The hint if it can be changed, but not while it runs."""


class Shape(BaseModel):
    """Regions in order, numbers of instances, the brokers' nodes, and every port by its name."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Literal[2] = VERSION
    """See ``VERSION``."""
    regions: Annotated[tuple[Name, ...], Field(min_length=1)]
    cores: Annotated[int, Field(ge=0)]
    """In each region, as ``gateways``."""
    gateways: Annotated[int, Field(ge=0)]
    applications: Annotated[int, Field(ge=0)] = 0
    """Gateways of the first region that applications embed."""
    nodes: Mapping[str, int] = {}
    """By region, the number of nodes of a broker that is a cluster."""
    watch: bool = False
    """Whether a watcher restarts processes that end."""
    ports: Mapping[str, Annotated[int, Field(ge=1, le=65535)]] = {}
    """As ``topology.ports`` names them."""

    @property
    def members(self) -> list[Member]:
        """Every instance. The only Auditor is in the first region."""
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
        return [
            Member(Role.GATEWAY, self.regions[0], number, APP)
            for number in range(1, self.applications + 1)
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
    """Return the shape asked for, with the known ports.

    Raises ``OtherShapeError`` if the system has another shape, or if it ``runs`` and would have to
    grow.
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
    """Replace the directory's shape file, and flush it to the disk."""
    write_private(directory / FILE, shape.model_dump_json(indent=2) + "\n")


def load(directory: Path) -> Shape | None:
    """Read the directory's shape file; ``None`` if there is none.

    Raises ``OtherVersionError`` for a file of another version, and ``DevError`` for any other
    file that is not valid.
    """
    path = directory / FILE
    try:
        with path.open("rb") as file:
            raw = file.read(BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    try:
        if (found := _version(raw)) != VERSION:
            raise OtherVersionError(path, found, VERSION)
        return Shape.model_validate_json(raw)
    except (ValueError, TypeError, RecursionError):
        raise DevError(
            f"{path} is not a valid shape file",
            hint="restore it; or remove it, and `kcm dev down` ends the processes of state.json",
        ) from None


def _version(raw: bytes) -> int | None:
    """Return the version of a shape file, or ``None`` if it has none.

    Raises ``ValueError`` or ``TypeError`` for what is not a shape file of any version.
    """
    document = json.loads(raw)
    if not isinstance(document, dict):
        raise TypeError
    found = document.get("version")
    if found is not None and (type(found) is not int or not 0 < found < 1 << 32):
        raise ValueError
    return found
