"""The configuration of a region whose broker is a cluster of several servers.

Every node has a copy of every stream, a link to the backbone, and a route to each other node. If
one of three nodes is isolated, the other two continue. A node alone stores no message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from kcm_devsystem.brokers import LOOPBACK, ClusterSpec, RegionSpec
from kcm_devsystem.errors import ImpossibleShapeError

NODES_MAX: Final = 5
"""Maximum nodes of a region, because JetStream keeps at most five copies."""

NOWHERE: Final = f"{LOOPBACK}:1"
"""The advertised address of a node if links take detours, so that no client bypasses them."""

Detour = Callable[[str, str, int], int]
"""Returns the port by which a server reaches another one, from both names and the real port."""


def direct(source: str, target: str, port: int) -> int:  # noqa: ARG001 - a Detour
    """Connect every server directly to the other one's port."""
    return port


def port_names(region: str, nodes: int) -> list[str]:
    """Return the names of a region's further ports: one per further node, one per route."""
    names = server_names(region, nodes)
    return [] if nodes == 1 else [*names[1:], *(f"{name}/route" for name in names)]


def server_names(region: str, nodes: int) -> list[str]:
    """Return the names of a region's servers: the region's name, with numbers for several.

    Raises ``ImpossibleShapeError`` for two nodes, which tolerate no failure, and for more nodes
    than JetStream can copy to.
    """
    if not 1 <= nodes <= NODES_MAX or nodes == 2:
        raise ImpossibleShapeError(f"{region} cannot have {nodes} nodes: 1, or 3 to {NODES_MAX}")
    return [region] if nodes == 1 else [f"{region}-{number}" for number in range(1, nodes + 1)]


def spread(
    spec: RegionSpec, nodes: int, ports: Iterator[int], root: Path, detour: Detour
) -> RegionSpec:
    """Return a region's server as a cluster of ``nodes``; raises ``ImpossibleShapeError``."""
    names = server_names(spec.name, nodes)
    if nodes == 1:
        return spec
    places = {name: (next(ports) if number else spec.port) for number, name in enumerate(names)}
    routes = {name: next(ports) for name in names}
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
                advertise="" if detour is direct else NOWHERE,
            ),
        )
        for name in names
    ]
    return replace(made[0], others=tuple(made[1:]))


def link(spec: RegionSpec, backbone: str, leaf_port: int, detour: Detour) -> RegionSpec:
    """Route the links of a region's nodes to the backbone through their detours."""
    if detour is direct:
        return spec

    def led(node: RegionSpec) -> RegionSpec:
        port = detour(node.server_name, backbone, leaf_port)
        return replace(node, leaf_url=f"tls://{LOOPBACK}:{port}")

    return replace(led(spec), others=tuple(led(node) for node in spec.others))
