"""Ports of a development system's brokers: their names, and the choice of new ones.

New ports are below the kernel's range for outgoing connections, so that no connection can take a
broker's port while the broker restarts.

A port has the name of its server (``eu-de``, ``eu-de-2``). ``NAME/route`` is the port for the other
nodes of its cluster, ``backbone/leaf`` the one for the regions.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from kcm_devsystem import clusters
from kcm_devsystem.brokers import LOOPBACK, BackboneSpec, RegionSpec
from kcm_devsystem.errors import DevError

RANGE: Final = range(10240, 32768)
"""The range of new ports: above the well-known ones, below Linux's ephemeral range."""
DRAWS_MAX: Final = 200
"""Maximum ports to test."""

NONE_KNOWN: Final[Mapping[str, int]] = MappingProxyType({})
"""No broker had a port before."""

Source = Callable[[int], tuple[int, ...]]
"""Returns the given number of different free ports."""


def names(regions: Sequence[str], nodes: Mapping[str, int]) -> list[str]:
    """Return the names of all ports, in the order in which ``topology.plan`` uses them."""
    firsts = [clusters.server_names(name, nodes.get(name, 1))[0] for name in regions]
    more = [port for name in regions for port in clusters.port_names(name, nodes.get(name, 1))]
    return ["backbone", "backbone/leaf", *firsts, *more]


def numbers(wanted: Sequence[str], known: Mapping[str, int], source: Source) -> Iterator[int]:
    """Yield the port of each name: the known one, else an unused one from ``source``."""
    taken = {known[name] for name in wanted if name in known}
    missing = sum(name not in known for name in wanted)
    drawn = source(missing + len(taken)) if missing else ()
    fresh = (port for port in drawn if port not in taken)
    return iter([known[name] if name in known else next(fresh) for name in wanted])


def planned(backbone: BackboneSpec, servers: Iterable[RegionSpec]) -> dict[str, int]:
    """Return the configured ports by name."""
    found = {backbone.name: backbone.port, f"{backbone.name}/leaf": backbone.leaf_port}
    for spec in servers:
        found[spec.server_name] = spec.port
        if spec.cluster is not None:
            found[f"{spec.server_name}/route"] = spec.cluster.port
    return found


def server_of(name: str) -> str:
    """Return the server of a port's name."""
    return name.partition("/")[0]


def draw(count: int) -> tuple[int, ...]:
    """Return different ports that are free on the loopback; raises ``DevError``."""
    drawn: set[int] = set()
    for port in random.SystemRandom().sample(RANGE, DRAWS_MAX):
        if len(drawn) == count:
            break
        if is_free(port):
            drawn.add(port)
    if len(drawn) < count:
        text = "the loopback has not enough free ports"
        raise DevError(text, hint="end programs that listen on the loopback, or use fewer regions")
    return tuple(drawn)


def is_free(port: int) -> bool:
    """Whether a server could listen on a port of the loopback now."""
    with socket.socket() as probe:
        # Like the server, ignore earlier connections in TIME_WAIT.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True
