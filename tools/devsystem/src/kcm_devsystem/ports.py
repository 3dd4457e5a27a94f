"""Ports of a development system's brokers: their names, and drawing those that are new.

They are drawn from below the range that the kernel hands out to outgoing connections, so that no
connection can take a broker's port while the broker is restarted.

A name is the server's (``eu-de``, ``eu-de-2``); ``NAME/route`` is where the other nodes of its
cluster connect, ``backbone/leaf`` where regions do.
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
"""Where ports are drawn from: above the well-known ones, below Linux's ephemeral range."""
DRAWS_MAX: Final = 200
"""Ports tried until one is free."""

NONE_KNOWN: Final[Mapping[str, int]] = MappingProxyType({})
"""No broker had a port before."""

Source = Callable[[int], tuple[int, ...]]
"""Gives that many different ports that are free."""


def names(regions: Sequence[str], nodes: Mapping[str, int]) -> list[str]:
    """Every port's name, in the order in which ``topology.plan`` takes them."""
    firsts = [clusters.server_names(name, nodes.get(name, 1))[0] for name in regions]
    more = [port for name in regions for port in clusters.port_names(name, nodes.get(name, 1))]
    return ["backbone", "backbone/leaf", *firsts, *more]


def numbers(wanted: Sequence[str], known: Mapping[str, int], source: Source) -> Iterator[int]:
    """The port of each name: the known one, else one from ``source`` that is nobody else's."""
    taken = {known[name] for name in wanted if name in known}
    missing = sum(name not in known for name in wanted)
    drawn = source(missing + len(taken)) if missing else ()
    fresh = (port for port in drawn if port not in taken)
    return iter([known[name] if name in known else next(fresh) for name in wanted])


def planned(backbone: BackboneSpec, servers: Iterable[RegionSpec]) -> dict[str, int]:
    """Every port that these are configured to have, by its name."""
    found = {backbone.name: backbone.port, f"{backbone.name}/leaf": backbone.leaf_port}
    for spec in servers:
        found[spec.server_name] = spec.port
        if spec.cluster is not None:
            found[f"{spec.server_name}/route"] = spec.cluster.port
    return found


def server_of(name: str) -> str:
    """The server whose port that is."""
    return name.partition("/")[0]


def draw(count: int) -> tuple[int, ...]:
    """Draw different ports that are free on the loopback now. Raises ``DevError`` if it can't."""
    drawn: set[int] = set()
    for port in random.SystemRandom().sample(RANGE, DRAWS_MAX):
        if len(drawn) == count:
            break
        if is_free(port):
            drawn.add(port)
    if len(drawn) < count:
        raise DevError("there are not enough free ports on the loopback")
    return tuple(drawn)


def is_free(port: int) -> bool:
    """Whether a server could listen on that port of the loopback now."""
    with socket.socket() as probe:
        # As the server does: the ends of earlier connections do not hold a port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True
