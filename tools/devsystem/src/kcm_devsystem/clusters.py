"""A region whose broker is several servers: what each of them is configured to be.

Every node keeps a copy of every stream, links to the backbone by itself and has a route to each
other node. With one of three cut off, the other two go on; alone, a node stores nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from kcm_devsystem.brokers import LOOPBACK, ClusterSpec, RegionSpec
from kcm_devsystem.errors import ImpossibleShapeError
from kcm_devsystem.files import password

NODES_MAX: Final = 5
"""Nodes of a region: JetStream keeps at most five copies."""

NOWHERE: Final = f"{LOOPBACK}:1"
"""What a node tells about itself where links take detours: nobody may find a shorter way."""

Detour = Callable[[str, str, int], int]
"""Gives the port by which a server reaches another one's: names of both, and the real port."""


def direct(source: str, target: str, port: int) -> int:  # noqa: ARG001 - a Detour
    """Let every server connect to where the other one listens."""
    return port


def port_names(region: str, nodes: int) -> list[str]:
    """The ports beside the one of a region's first server: one per further node, one per route."""
    names = server_names(region, nodes)
    return [] if nodes == 1 else [*names[1:], *(f"{name}/route" for name in names)]


def server_names(region: str, nodes: int) -> list[str]:
    """The servers of a region: one alone has the region's name, several have a number too.

    Raises ``ImpossibleShapeError`` for a number with which nothing is gained, or that JetStream
    cannot copy to.
    """
    if not 1 <= nodes <= NODES_MAX or nodes == 2:
        raise ImpossibleShapeError(f"{region} cannot have {nodes} nodes: 1, or 3 to {NODES_MAX}")
    return [region] if nodes == 1 else [f"{region}-{number}" for number in range(1, nodes + 1)]


def spread(
    spec: RegionSpec, nodes: int, ports: Iterator[int], root: Path, detour: Detour
) -> RegionSpec:
    """Make a region's only server the first of ``nodes``; raises ``ImpossibleShapeError``."""
    names = server_names(spec.name, nodes)
    if nodes == 1:
        return spec
    places = {name: (next(ports) if number else spec.port) for number, name in enumerate(names)}
    routes = {name: next(ports) for name in names}
    secret = password(root / "secrets" / spec.name / "routes")
    made = [
        replace(
            spec,
            server=name,
            port=places[name],
            store_dir=root / "brokers" / name,
            cluster=ClusterSpec(
                port=routes[name],
                routes=tuple(
                    f"{LOOPBACK}:{detour(name, other, routes[other])}"
                    for other in names
                    if other != name
                ),
                password=secret,
                advertise="" if detour is direct else NOWHERE,
            ),
        )
        for name in names
    ]
    return replace(made[0], others=tuple(made[1:]))


def link(spec: RegionSpec, backbone: str, leaf_port: int, detour: Detour) -> RegionSpec:
    """Lead the link of each of a region's nodes to the backbone by its detour."""
    if detour is direct:
        return spec

    def led(node: RegionSpec) -> RegionSpec:
        port = detour(node.server_name, backbone, leaf_port)
        return replace(node, leaf_url=f"nats-leaf://{LOOPBACK}:{port}")

    return replace(led(spec), others=tuple(led(node) for node in spec.others))
