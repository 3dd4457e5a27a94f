"""The brokers of a development system: one backbone and one broker per region, running.

A broker keeps its port from before, unless another program listens there. Another program may also
take a new port before the broker listens on it. Then all ports are chosen again and all brokers
restarted.

A broker is ready when it has written its *ports file*. The file has the broker's pid in its name,
and the broker writes it after it listens. So another program on that port is not mistaken for it.

The directory: ``brokers/NAME.conf``, ``brokers/NAME/`` (streams and accounts), ``realms/``,
``certificates/`` and ``users/`` (see ``kcm_deployment.broker_files``), ``log/NAME.log``, ``run/``
(ports and ready files).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Final

from kcm_deployment.broker_files import BACKBONE, LINKS, Brokers
from kcm_runtime.files.private_files import make_directory, write_private

from kcm_devsystem import broker_config, brokers, clusters, ports, processes
from kcm_devsystem.broker_config import ServerPaths
from kcm_devsystem.broker_users import USERS, Users, brokers_of, make_users
from kcm_devsystem.brokers import LOOPBACK, BackboneSpec, RegionSpec
from kcm_devsystem.clusters import Detour, direct
from kcm_devsystem.errors import DevError, ImpossibleShapeError, ProcessDiedError
from kcm_devsystem.processes import Process, ReadyFile
from kcm_devsystem.server_binary import nats_server_binary
from kcm_devsystem.state import Entry, Kind

STARTS_MAX: Final = 3
"""Starts of the brokers while other programs take their ports."""

NO_CLUSTERS: Final[Mapping[str, int]] = MappingProxyType({})
"""Every region's broker is a single server."""

Write = Callable[[Path, str], None]
"""Writes a configuration, as ``files.write_private`` does."""


@dataclass(frozen=True, slots=True)
class Before:
    """What was there before a start: the ports by name, and the servers that run."""

    known: Mapping[str, int] = field(default_factory=dict)
    running: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Topology:
    """The brokers' specifications, their directory, and the operators that they trust."""

    root: Path
    backbone: BackboneSpec
    regions: tuple[RegionSpec, ...]
    brokers: Brokers

    def region(self, name: str) -> RegionSpec:
        """Return a region by name. Raises ``DevError`` if there is none."""
        for spec in self.regions:
            if spec.name == name:
                return spec
        raise DevError(f"there is no region called {name}")

    @property
    def servers(self) -> Iterator[RegionSpec]:
        """Every server of every region."""
        for spec in self.regions:
            yield from spec.nodes

    @property
    def ports(self) -> dict[str, int]:
        """Every port by its name; see ``ports``."""
        return ports.planned(self.backbone, self.servers)


@dataclass(frozen=True, slots=True)
class Place:
    """A broker's addresses and the directory of its streams; the backbone uses ``leaf_port``."""

    host: str
    port: int
    leaf_port: int
    store_dir: PurePath
    ports_dir: PurePath | None
    reached_as: str = ""


def plan(
    root: Path,
    regions: Sequence[str],
    users: Users = USERS,
    *,
    place: Callable[[str], Place] | None = None,
    draw: ports.Source = ports.draw,
    nodes: Mapping[str, int] = NO_CLUSTERS,
    detour: Detour = direct,
    known: Mapping[str, int] = ports.NONE_KNOWN,
) -> Topology:
    """Choose ports, and make the keys, tokens and credentials that the directory lacks.

    ``place`` returns the place of the backbone (an empty name) or of a region's broker. Without it,
    brokers are on the loopback, on the port ``known`` for their name (see ``ports``) or else one
    from ``draw``. ``nodes`` has the size of each region's cluster; clusters are on the loopback.
    Raises ``DevError`` for a bad name or number of a region.
    """
    names = tuple(brokers.region_name(name) for name in regions)
    numbers: Iterator[int] = iter(())
    check(names, nodes)
    if place is None:
        numbers = ports.numbers(ports.names(names, nodes), known, draw)
        place = _loopback(root, names, numbers).__getitem__
    at = place("")
    backbone = BackboneSpec(at.host, at.port, at.leaf_port, at.ports_dir, reached_as=at.reached_as)
    specs = []
    for name in names:
        at = place(name)
        spec = RegionSpec(
            name,
            at.host,
            at.port,
            at.store_dir,
            backbone.url,
            at.ports_dir,
            reached_as=at.reached_as,
        )
        spec = clusters.spread(spec, nodes.get(name, 1), numbers, root, detour)
        specs.append(clusters.link(spec, backbone.name, backbone.leaf_port, detour))
    operators = brokers_of(root, names, users)
    make_users(operators, users)
    return Topology(root, backbone, tuple(specs), operators)


def _loopback(root: Path, regions: Sequence[str], numbers: Iterator[int]) -> dict[str, Place]:
    """Return places on the loopback, the backbone's under the empty name."""
    return {
        name: Place(
            host=LOOPBACK,
            port=next(numbers),
            leaf_port=0 if name else next(numbers),
            store_dir=root / "brokers" / name,
            ports_dir=root / "run",
        )
        for name in ("", *regions)
    }


def check(regions: Sequence[str], nodes: Mapping[str, int]) -> None:
    """Raise ``ImpossibleShapeError`` unless these regions can have brokers of so many nodes."""
    for region in regions:
        brokers.region_name(region)
    for region in nodes:
        if region not in regions:
            known = ", ".join(regions)
            raise ImpossibleShapeError(f"no region is called {region}; there are: {known}")
    names = [
        name for region in regions for name in clusters.server_names(region, nodes.get(region, 1))
    ]
    if len(set(names)) != len(names):
        raise ImpossibleShapeError("two servers would have the same name")


def config_path(root: Path, name: str) -> Path:
    """Return the path of a broker's configuration."""
    return root / "brokers" / f"{name}.conf"


def write_configs(
    topology: Topology, write: Write = write_private, *, leave: frozenset[str] = frozenset()
) -> None:
    """Write the brokers' configurations, except those of the servers in ``leave``."""
    root, backbone, operators = topology.root, topology.backbone, topology.brokers
    if backbone.name not in leave:
        paths = _paths(topology, BACKBONE, backbone.name)
        text = broker_config.render_backbone(backbone, operators, paths)
        write(config_path(root, backbone.name), text)
    for spec in topology.servers:
        if spec.server_name not in leave:
            paths = _paths(topology, spec.name, spec.server_name)
            text = broker_config.render_region(spec, operators, paths)
            write(config_path(root, spec.server_name), text)


def _paths(topology: Topology, broker: str, server: str) -> ServerPaths:
    """Return where a server on this machine finds its files, which are made if missing."""
    accounts = topology.root / "brokers" / server / "accounts"
    make_directory(accounts)
    operators, addresses = topology.brokers, (LOOPBACK, "localhost")
    own, links = operators.tls(broker, server, addresses), operators.certificates(LINKS).ca
    if broker == BACKBONE:
        return ServerPaths(own, links, accounts)
    link = operators.link_tls(server, addresses)
    return ServerPaths(own, links, accounts, link, operators.link_file(broker))


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where brokers get a free port from, and over which address the members of a system go."""

    draw: ports.Source = ports.draw
    detour: Detour = direct


@dataclass(frozen=True, slots=True)
class Steps:
    """What happens while brokers start.

    ``planned`` gets each plan before its execution, and ``write`` stores a file of it. ``record``
    gets each process as soon as it exists, before it is ready, so that it is known even if this
    process dies.
    """

    planned: Callable[[Topology], None] = lambda _: None
    write: Write = write_private
    record: Callable[[Entry], None] = lambda _: None


def start(
    root: Path,
    regions: Sequence[str],
    *,
    die_with_parent: bool,
    nodes: Mapping[str, int] = NO_CLUSTERS,
    before: Before = Before(),
    users: Users = USERS,
    addresses: Addresses = Addresses(),
    steps: Steps = Steps(),
) -> tuple[Topology, tuple[Entry, ...]]:
    """Plan, write and start a backbone and these regions, and wait until they are ready.

    ``nodes`` has the size of each region's cluster. Servers that run already are not touched.
    Raises ``DevError`` after ending the processes that it started.
    """
    server, known, running = nats_server_binary(), before.known, before.running
    attempts = 1 if running else STARTS_MAX
    for attempt in range(1, attempts + 1):
        # Running servers keep their addresses, so the others keep theirs, too.
        kept = known if running else {name: n for name, n in known.items() if ports.is_free(n)}
        topology = plan(
            root,
            regions,
            draw=addresses.draw,
            nodes=nodes,
            detour=addresses.detour,
            known=kept,
            users=users,
        )
        if running:
            _require_free(topology, running)
        steps.planned(topology)
        write_configs(topology, steps.write, leave=running)
        entries: list[Entry] = []
        try:
            with ExitStack() as undo:
                for entry in _entries(topology, server, running, die_with_parent=die_with_parent):
                    undo.callback(processes.stop, [entry.process])
                    steps.record(entry)
                    wait_broker(topology, entry.process)
                    entries.append(entry)
                undo.pop_all()
        except ProcessDiedError:
            if attempt == attempts or all(map(ports.is_free, topology.ports.values())):
                raise
            continue
        return topology, tuple(entries)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _require_free(topology: Topology, running: frozenset[str]) -> None:
    for name, port in topology.ports.items():
        if ports.server_of(name) not in running and not ports.is_free(port):
            raise DevError(
                f"another program listens on {port}, the port of {name}",
                hint="end that program; or `kcm dev down`, then `kcm dev up` with other ports",
            )


def start_broker(topology: Topology, name: str, *, die_with_parent: bool) -> Process:
    """Restart one broker with its configuration and ports.

    ``name`` is the name of a server, or ``backbone``. Raises ``DevError`` if the broker does not
    start.
    """
    process = spawn_broker(topology.root, name, die_with_parent=die_with_parent)
    try:
        wait_broker(topology, process)
    except DevError:
        processes.stop([process])
        raise
    return process


def spawn_broker(root: Path, name: str, *, die_with_parent: bool) -> Process:
    """Start one broker of the directory ``root`` without waiting for it."""
    return _spawn(root, name, nats_server_binary(), die_with_parent=die_with_parent)


def ports_file(root: Path, process: Process) -> Path:
    """Return the file that a broker writes once it listens."""
    return root / "run" / f"nats-server_{process.pid}.ports"


def wait_broker(topology: Topology, process: Process) -> None:
    """Wait until a broker is ready. Raises the errors of ``processes.wait_ready``."""
    processes.wait_ready(process, ReadyFile(ports_file(topology.root, process)))


def _entries(
    topology: Topology, server: Path, running: frozenset[str], *, die_with_parent: bool
) -> Iterator[Entry]:
    """Start one broker after another, the backbone first."""
    root, backbone = topology.root, topology.backbone
    if backbone.name not in running:
        process = _spawn(root, backbone.name, server, die_with_parent=die_with_parent)
        yield Entry(process, Kind.BROKER, "backbone", address=backbone.url)
    for spec in topology.servers:
        if spec.server_name not in running:
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
