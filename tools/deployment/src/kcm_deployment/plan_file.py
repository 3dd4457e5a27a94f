"""The file that describes a deployment, for ``kcm init``."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal

from kcm_runtime.config import ConfigError, Section, load
from kcm_schemas.names import Name, is_name, is_region
from kcm_schemas.roster import OperatorRole, Role
from kcm_schemas.text import counted
from kcm_trust.identity import ROOT
from pydantic import AfterValidator, Field

from kcm_deployment.deployment import RESERVED, Deployment, RegionPlan, Server
from kcm_deployment.members import Member, Person, Place

VERSION: Final = 1
"""The version of the file's format."""

INSTANCES_MAX: Final = 64
"""Instances of one role in one region."""

EXAMPLE: Final = """\
# What `kcm init` makes: a backbone and two regions of three servers each. Change the names and the
# hosts. Later you may add regions, servers at the end of a list, instances and operators, and give
# the command again.

version = 1
system = "acme"                  # in every signature: it cannot be changed later

[[operators]]
name = "alice"
roles = ["admin", "security"]    # admin: tenants and applications; security: kills and lifts

[[operators]]
name = "bob"                     # some orders need two operators
roles = ["security"]

[backbone]                       # joins the regions: three places are best
servers = ["backbone-1.example", "backbone-2.example", "backbone-3.example"]

[regions.eu-de]
servers = ["nats-1.eu-de.example", "nats-2.eu-de.example", "nats-3.eu-de.example"]
cores = 2
gateways = 2
auditors = 1

[regions.us-east]
servers = ["nats-1.us-east.example", "nats-2.us-east.example", "nats-3.us-east.example"]
cores = 2
gateways = 2
auditors = 1
# ca = "corp-ca.pem"             # clients trust this authority, and you bring the certificates

# [[regions.us-east.embedded]]   # an application that has the Gateway in its own process
# application = "shop"           # `kcm app create shop` decides what it may do
# grants = ["clinic/files"]      # what it may do at most
# count = 2                      # its processes
"""


def _host(text: str) -> str:
    """Return a host name or an IP address; raises ``ValueError``."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        if 0 < len(text) <= 253 and all(map(is_name, text.split("."))):
            return text
        raise ValueError(
            "is not a host: a name in lower case or an IPv4 address, with no port"
        ) from None
    if found.version != 4:
        raise ValueError("is an IPv6 address: give the server a host name")
    return text


def _cluster(servers: tuple[str, ...]) -> tuple[str, ...]:
    if len(servers) not in {1, 3, 4, 5}:
        raise ValueError(
            f"has {counted(len(servers), 'server')}; a broker has 1, or 3 to 5: two tolerate no"
            " failure"
        )
    return servers


def _places(grants: tuple[str, ...]) -> tuple[str, ...]:
    for one in grants:
        parts = one.split("/")
        if len(parts) != 2 or not all(part == "*" or is_name(part) for part in parts):
            raise ValueError("a grant is TENANT/SERVICE; * is every one of them")
    if not grants or len(set(grants)) != len(grants):
        raise ValueError("give at least one grant, and each of them once")
    return grants


Servers = Annotated[tuple[Annotated[str, AfterValidator(_host)], ...], AfterValidator(_cluster)]

Count = Annotated[int, Field(ge=1, le=INSTANCES_MAX, strict=True)]


class OperatorEntry(Section):
    """A person who signs orders."""

    name: Name
    roles: Annotated[tuple[OperatorRole, ...], Field(min_length=1)]


class BackboneEntry(Section):
    """The servers that join the regions."""

    servers: Servers


class EmbeddedEntry(Section):
    """Gateways inside of the processes of one application."""

    application: Name
    grants: Annotated[tuple[str, ...], AfterValidator(_places)]
    count: Count = 1


class RegionEntry(Section):
    """A region: its servers, and the numbers of its instances."""

    servers: Servers
    cores: Count = 2
    gateways: Count = 1
    auditors: Count = 1
    embedded: Annotated[tuple[EmbeddedEntry, ...], Field(max_length=INSTANCES_MAX)] = ()
    ca: Path | None = None
    """The authority of the certificates that clients see, if it is yours; relative to the file."""


class PlanFile(Section):
    """The whole file."""

    version: Literal[1]
    system: Name
    operators: Annotated[tuple[OperatorEntry, ...], Field(min_length=1, max_length=64)]
    backbone: BackboneEntry
    regions: Annotated[dict[Name, RegionEntry], Field(min_length=1, max_length=32)]


def read_plan(path: Path) -> Deployment:
    """Read and validate a plan; raises ``ConfigError``."""
    file = load(PlanFile, str(path), values=True)
    for fault in _faults(file, path.parent):
        raise ConfigError(f"{path}: {fault}")
    return Deployment(
        file.system,
        tuple(
            RegionPlan(
                name,
                _servers(name, region.servers),
                tuple(_members(name, region)),
                region.ca and path.parent / region.ca,
            )
            for name, region in file.regions.items()
        ),
        _servers("backbone", file.backbone.servers),
        tuple(Person(one.name, tuple(one.roles)) for one in file.operators),
    )


def _faults(file: PlanFile, directory: Path) -> Iterator[str]:
    """Yield what parts of a plan contradict, each with its place."""
    yield from _wrong_servers("backbone", file.backbone.servers)
    for name, region in file.regions.items():
        yield from _wrong_servers(f"regions.{name}", region.servers)
    yield from _wrong_instances(file)
    yield from _wrong_operators(file)
    for name, region in file.regions.items():
        if not is_region(name) or name in RESERVED:
            yield f"regions.{name}: a region cannot have this name: it has another meaning"
        if region.ca is not None and not (directory / region.ca).is_file():
            yield f"regions.{name}.ca: there is no file {str(region.ca)!r}"


def _wrong_servers(place: str, servers: tuple[str, ...]) -> Iterator[str]:
    for index, host in enumerate(servers):
        if host in servers[:index]:
            yield f"{place}.servers[{index}]: {host!r} is listed twice"


def _wrong_instances(file: PlanFile) -> Iterator[str]:
    for region, entry in file.regions.items():
        names = [one.name for one in _members(region, entry)]
        for one in names:
            if names.count(one) > 1 or not is_name(one):
                yield (
                    f"regions.{region}: {one!r} cannot be an instance: two have this name, or it is"
                    " too long; list each application once, and call none core, gateway or auditor"
                )


def _wrong_operators(file: PlanFile) -> Iterator[str]:
    members = {one.name for name, region in file.regions.items() for one in _members(name, region)}
    names = [one.name for one in file.operators]
    for index, name in enumerate(names):
        place = f"operators[{index}].name: {name!r}"
        if name in names[:index]:
            yield f"{place} is listed twice"
        if name == ROOT:
            yield f"{place} is the name of the operator root: choose another one"
        if name in members:
            yield f"{place} is the name of an instance: choose another one"
    if not any(OperatorRole.SECURITY in one.roles for one in file.operators):
        yield "operators: none has the role 'security', so there is no one to place a hold"


def _members(region: str, entry: RegionEntry) -> list[Member]:
    counts = (
        (Role.CORE, entry.cores),
        (Role.GATEWAY, entry.gateways),
        (Role.AUDITOR, entry.auditors),
    )
    found = [
        Member(role, region, number) for role, count in counts for number in range(1, count + 1)
    ]
    for one in entry.embedded:
        places = tuple(Place(*grant.split("/")) for grant in one.grants)
        found += [
            Member(Role.GATEWAY, region, number, one.application, places)
            for number in range(1, one.count + 1)
        ]
    return found


def _servers(name: str, hosts: tuple[str, ...]) -> tuple[Server, ...]:
    return tuple(Server(f"{name}-{number}", host) for number, host in enumerate(hosts, 1))
