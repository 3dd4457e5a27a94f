"""The brokers of a development system: one backbone and one broker per region, running.

Ports are drawn from below the range that the kernel hands out to outgoing connections, so that
no connection can take a broker's port while the broker is restarted. Between drawing one and
listening on it another program may still be faster: then everything is drawn and started anew.

A broker counts as ready when it has written its *ports file*. The file bears its pid and comes
after it listens, so a stranger that accepts on the same port cannot be mistaken for it.

The directory: ``brokers/NAME.conf`` (0600, with passwords), ``brokers/NAME/`` (streams),
``secrets/`` (one password per file, 0600), ``log/NAME.log``, ``run/`` (ports and ready files).
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Final

from kcm.dev import brokers, clusters, processes
from kcm.dev.binary import nats_server_binary
from kcm.dev.brokers import (
    LOOPBACK,
    Account,
    BackboneSpec,
    LeafLogin,
    Login,
    Permissions,
    RegionSpec,
    Role,
)
from kcm.dev.clusters import Detour, direct
from kcm.dev.errors import DevError, ProcessDiedError
from kcm.dev.files import password, write_private
from kcm.dev.processes import Process, ReadyFile
from kcm.dev.state import Entry, Kind

PORTS: Final = range(10240, 32768)
"""Where ports are drawn from: above the well-known ones, below Linux's ephemeral range."""
DRAWS_MAX: Final = 200
"""Ports tried until one is free."""
STARTS_MAX: Final = 3
"""Times that the brokers are started when somebody takes a drawn port."""

NO_CLUSTERS: Final[Mapping[str, int]] = MappingProxyType({})
"""Every region's broker is one server."""

PortSource = Callable[[int], tuple[int, ...]]
"""Gives that many different ports that are free."""
PermissionsOf = Callable[[str, Role, Account], Permissions | None]
"""Tells for region, role and account what the user may do; none means the whole account."""


@dataclass(frozen=True, slots=True)
class Topology:
    """The brokers' specifications, and the directory that they live in."""

    root: Path
    backbone: BackboneSpec
    regions: tuple[RegionSpec, ...]

    def region(self, name: str) -> RegionSpec:
        """Find a region by name. Raises ``DevError`` when there is none."""
        for spec in self.regions:
            if spec.name == name:
                return spec
        raise DevError(f"there is no region called {name}")

    @property
    def servers(self) -> Iterator[RegionSpec]:
        """Every server of every region."""
        for spec in self.regions:
            yield from spec.nodes


@dataclass(frozen=True, slots=True)
class Place:
    """Where a broker listens, is reached and keeps its streams; the backbone uses ``leaf_port``."""

    host: str
    port: int
    leaf_port: int
    store_dir: PurePath
    ports_dir: PurePath | None
    reached_as: str = ""


def whole_account(region: str, role: Role, account: Account) -> Permissions | None:  # noqa: ARG001 - a PermissionsOf
    """Let every user do everything in its account."""
    return None


def plan(
    root: Path,
    regions: Sequence[str],
    permissions: PermissionsOf = whole_account,
    *,
    place: Callable[[str], Place] | None = None,
    draw: PortSource | None = None,
    nodes: Mapping[str, int] = NO_CLUSTERS,
    detour: Detour = direct,
) -> Topology:
    """Decide on ports and passwords; passwords that the directory has already are kept.

    ``place`` tells where the backbone (an empty name) or a region's broker lives; left out, it
    is on the loopback with freshly drawn ports, from ``draw`` if given. ``nodes`` says of which
    region the broker is a cluster, and of how many; such a one is on the loopback. Raises
    ``DevError`` for a region's bad name or number.
    """
    names = tuple(brokers.region_name(name) for name in regions)
    ports: Iterator[int] = iter(())
    _check_servers(names, nodes)
    if place is None:
        more = sum(clusters.ports_needed(nodes.get(name, 1)) for name in names)
        ports = iter((draw or draw_ports)(2 + len(names) + more))
        here = {
            name: Place(
                host=LOOPBACK,
                port=next(ports),
                leaf_port=0 if name else next(ports),
                store_dir=root / "brokers" / name,
                ports_dir=root / "run",
            )
            for name in ("", *names)
        }
        place = here.__getitem__
    at = place("")
    leaves = tuple(LeafLogin(n, password(root / "secrets" / "backbone" / n)) for n in names)
    backbone = BackboneSpec(
        at.host, at.port, at.leaf_port, leaves, at.ports_dir, reached_as=at.reached_as
    )
    specs = []
    for leaf in leaves:
        at = place(leaf.region)
        users = tuple(
            Login(
                role,
                account,
                password(password_path(root, leaf.region, role, account)),
                permissions(leaf.region, role, account),
            )
            for account, roles in brokers.ROLES.items()
            for role in roles
        )
        spec = RegionSpec(
            leaf.region,
            at.host,
            at.port,
            at.store_dir,
            backbone.url,
            leaf,
            users,
            at.ports_dir,
            reached_as=at.reached_as,
        )
        spec = clusters.spread(spec, nodes.get(leaf.region, 1), ports, root, detour)
        specs.append(clusters.link(spec, backbone.name, backbone.leaf_port, detour))
    return Topology(root, backbone, tuple(specs))


def _check_servers(regions: Sequence[str], nodes: Mapping[str, int]) -> None:
    names = [
        name for region in regions for name in clusters.server_names(region, nodes.get(region, 1))
    ]
    if len(set(names)) != len(names):
        raise DevError("two servers would have the same name")
    for region in nodes:
        if region not in regions:
            raise DevError(f"there is no region called {region}")


def password_path(root: Path, region: str, role: Role, account: Account) -> Path:
    """Name the file that keeps the password of a role in an account."""
    return root / "secrets" / region / brokers.login_name(role, account)


def config_path(root: Path, name: str) -> Path:
    """Name a broker's configuration file."""
    return root / "brokers" / f"{name}.conf"


def write_configs(topology: Topology) -> None:
    """Write every broker's configuration, mode 0600."""
    root = topology.root
    write_private(
        config_path(root, topology.backbone.name), brokers.render_backbone(topology.backbone)
    )
    for spec in topology.servers:
        write_private(config_path(root, spec.server_name), brokers.render_region(spec))


def start(
    root: Path,
    regions: Sequence[str],
    permissions: PermissionsOf = whole_account,
    *,
    die_with_parent: bool,
    record: Callable[[Entry], None] = lambda _: None,
    draw: PortSource | None = None,
    nodes: Mapping[str, int] = NO_CLUSTERS,
    detour: Detour = direct,
) -> tuple[Topology, tuple[Entry, ...]]:
    """Plan, write and start a backbone and these regions, and wait until they serve.

    ``record`` is called with each process as soon as it exists, before it is ready, so that it
    is known even if this one dies. Raises ``DevError``, having ended what it had started.
    """
    server = nats_server_binary()
    for attempt in range(1, STARTS_MAX + 1):
        topology = plan(root, regions, permissions, draw=draw, nodes=nodes, detour=detour)
        write_configs(topology)
        entries: list[Entry] = []
        try:
            with ExitStack() as undo:
                for entry in _entries(topology, server, die_with_parent=die_with_parent):
                    undo.callback(processes.stop, [entry.process])
                    record(entry)
                    wait_broker(topology, entry.process)
                    entries.append(entry)
                undo.pop_all()
        except ProcessDiedError:
            if attempt == STARTS_MAX or all(_is_free(port) for port in _ports(topology)):
                raise
            continue
        return topology, tuple(entries)
    raise AssertionError("unreachable: the last attempt returns or raises")


def start_broker(topology: Topology, name: str, *, die_with_parent: bool) -> Process:
    """Start one broker again, with the configuration and on the ports that it had.

    ``name`` is a server's, as of a region, or ``backbone``. Raises ``DevError`` when it does
    not come up.
    """
    process = spawn_broker(topology.root, name, die_with_parent=die_with_parent)
    try:
        wait_broker(topology, process)
    except DevError:
        processes.stop([process])
        raise
    return process


def spawn_broker(root: Path, name: str, *, die_with_parent: bool) -> Process:
    """Start one broker of the directory ``root``; does not wait."""
    return _spawn(root, name, nats_server_binary(), die_with_parent=die_with_parent)


def ports_file(root: Path, process: Process) -> Path:
    """What a broker writes once it listens."""
    return root / "run" / f"nats-server_{process.pid}.ports"


def wait_broker(topology: Topology, process: Process) -> None:
    """Wait until a broker serves. Raises as ``processes.wait_ready`` does."""
    processes.wait_ready(process, ReadyFile(ports_file(topology.root, process)))


def draw_ports(count: int) -> tuple[int, ...]:
    """Draw different ports that are free on the loopback now. Raises ``DevError`` if it can't."""
    drawn: set[int] = set()
    for port in random.SystemRandom().sample(PORTS, DRAWS_MAX):
        if len(drawn) == count:
            break
        if _is_free(port):
            drawn.add(port)
    if len(drawn) < count:
        raise DevError("there are not enough free ports on the loopback")
    return tuple(drawn)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the server does: the ends of earlier connections do not hold a port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _ports(topology: Topology) -> tuple[int, ...]:
    backbone = topology.backbone
    servers = list(topology.servers)
    return (
        backbone.port,
        backbone.leaf_port,
        *(spec.port for spec in servers),
        *(spec.cluster.port for spec in servers if spec.cluster is not None),
    )


def _entries(topology: Topology, server: Path, *, die_with_parent: bool) -> Iterator[Entry]:
    """Start one broker after the other, the backbone first."""
    root, backbone = topology.root, topology.backbone
    process = _spawn(root, backbone.name, server, die_with_parent=die_with_parent)
    yield Entry(process, Kind.BROKER, "backbone", address=backbone.url)
    for spec in topology.servers:
        process = _spawn(root, spec.server_name, server, die_with_parent=die_with_parent)
        yield Entry(process, Kind.BROKER, "region", spec.name, address=spec.url)


def _spawn(root: Path, name: str, server: Path, *, die_with_parent: bool) -> Process:
    (root / "run").mkdir(mode=0o700, parents=True, exist_ok=True)
    return processes.spawn(
        name,
        [str(server), "--config", str(config_path(root, name))],
        root / "log" / f"{name}.log",
        {},
        die_with_parent=die_with_parent,
    )
