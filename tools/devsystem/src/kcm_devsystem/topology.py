"""The brokers of a development system: one backbone and one broker per region, running.

A broker gets the port that it had before, unless another program listens there. Between drawing
a new one and listening on it another program may still be faster: then everything is drawn and
started anew.

A broker counts as ready when it has written its *ports file*. The file bears its pid and comes
after it listens, so a stranger that accepts on the same port cannot be mistaken for it.

The directory: ``brokers/NAME.conf`` (0600, with passwords), ``brokers/NAME/`` (streams),
``secrets/`` (one password per file, 0600), ``log/NAME.log``, ``run/`` (ports and ready files).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Final

from kcm_devsystem import brokers, clusters, ports, processes
from kcm_devsystem.brokers import (
    LOOPBACK,
    Account,
    BackboneSpec,
    LeafLogin,
    Login,
    Permissions,
    RegionSpec,
    Role,
)
from kcm_devsystem.clusters import Detour, direct
from kcm_devsystem.errors import DevError, ImpossibleShapeError, ProcessDiedError
from kcm_devsystem.files import password, write_private
from kcm_devsystem.processes import Process, ReadyFile
from kcm_devsystem.server_binary import nats_server_binary
from kcm_devsystem.state import Entry, Kind

STARTS_MAX: Final = 3
"""Times that the brokers are started when somebody takes a drawn port."""

NO_CLUSTERS: Final[Mapping[str, int]] = MappingProxyType({})
"""Every region's broker is one server."""

Write = Callable[[Path, str], None]
"""Writes a configuration, as ``files.write_private`` does."""
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

    @property
    def ports(self) -> dict[str, int]:
        """Every port by its name; see ``ports``."""
        return ports.planned(self.backbone, self.servers)


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
    draw: ports.Source = ports.draw,
    nodes: Mapping[str, int] = NO_CLUSTERS,
    detour: Detour = direct,
    known: Mapping[str, int] = ports.NONE_KNOWN,
) -> Topology:
    """Decide on ports and passwords; passwords that the directory has already are kept.

    ``place`` tells where the backbone (an empty name) or a region's broker lives; left out, it
    is on the loopback, on the port that is ``known`` by its name (see ``ports``), else on one from
    ``draw``. ``nodes`` says of which region the broker is a cluster, and of how many; such a one is
    on the loopback. Raises ``DevError`` for a region's bad name or number.
    """
    names = tuple(brokers.region_name(name) for name in regions)
    numbers: Iterator[int] = iter(())
    check(names, nodes)
    if place is None:
        numbers = ports.numbers(ports.names(names, nodes), known, draw)
        here = {
            name: Place(
                host=LOOPBACK,
                port=next(numbers),
                leaf_port=0 if name else next(numbers),
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
        spec = clusters.spread(spec, nodes.get(leaf.region, 1), numbers, root, detour)
        specs.append(clusters.link(spec, backbone.name, backbone.leaf_port, detour))
    return Topology(root, backbone, tuple(specs))


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


def password_path(root: Path, region: str, role: Role, account: Account) -> Path:
    """Name the file that keeps the password of a role in an account."""
    return root / "secrets" / region / brokers.login_name(role, account)


def config_path(root: Path, name: str) -> Path:
    """Name a broker's configuration file."""
    return root / "brokers" / f"{name}.conf"


def write_configs(
    topology: Topology, write: Write = write_private, *, leave: frozenset[str] = frozenset()
) -> None:
    """Write every broker's configuration, mode 0600, but those of the servers to ``leave``."""
    root, backbone = topology.root, topology.backbone
    if backbone.name not in leave:
        write(config_path(root, backbone.name), brokers.render_backbone(backbone))
    for spec in topology.servers:
        if spec.server_name not in leave:
            write(config_path(root, spec.server_name), brokers.render_region(spec))


def start(
    root: Path,
    regions: Sequence[str],
    permissions: PermissionsOf = whole_account,
    *,
    die_with_parent: bool,
    record: Callable[[Entry], None] = lambda _: None,
    draw: ports.Source = ports.draw,
    nodes: Mapping[str, int] = NO_CLUSTERS,
    detour: Detour = direct,
    known: Mapping[str, int] = ports.NONE_KNOWN,
    running: frozenset[str] = frozenset(),
    planned: Callable[[Topology], None] = lambda _: None,
    write: Write = write_private,
) -> tuple[Topology, tuple[Entry, ...]]:
    """Plan, write and start a backbone and these regions, and wait until they serve.

    ``known`` are the ports that they had before, ``running`` the servers that run there and are
    left alone. ``planned`` is called with each plan before it is acted upon. ``record`` is called
    with each process as soon as it exists, before it is ready, so that it is known even if this
    one dies. Raises ``DevError``, having ended what it had started.
    """
    server = nats_server_binary()
    attempts = 1 if running else STARTS_MAX
    for attempt in range(1, attempts + 1):
        # Those that run are reached where they are, so nobody moves beside them.
        kept = known if running else {name: n for name, n in known.items() if ports.is_free(n)}
        topology = plan(
            root, regions, permissions, draw=draw, nodes=nodes, detour=detour, known=kept
        )
        if running:
            _require_free(topology, running)
        planned(topology)
        write_configs(topology, write, leave=running)
        entries: list[Entry] = []
        try:
            with ExitStack() as undo:
                for entry in _entries(topology, server, running, die_with_parent=die_with_parent):
                    undo.callback(processes.stop, [entry.process])
                    record(entry)
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
                f"another program listens on {port}, the port of {name}: end that one, or move the "
                "system with `kcm dev down` and `kcm dev up`"
            )


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


def _entries(
    topology: Topology, server: Path, running: frozenset[str], *, die_with_parent: bool
) -> Iterator[Entry]:
    """Start one broker after the other, the backbone first."""
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
