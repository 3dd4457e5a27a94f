"""``kcm dev``: a whole system on this machine, for trying things out."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from kcm.cli.endings import orderly
from kcm.cli.exits import Exit
from kcm.cli.names import NAME
from kcm.cli.output import emit, note, say
from kcm.cli.problems import Problem, clean
from kcm.cli.settings import Settings, common
from kcm.cli.streams import tell

if TYPE_CHECKING:
    from kcm.dev.system import Options

ROOT_KEY: Final = Path("keys") / "root"
"""What only a development system has beside its context: the operator root's private key."""

directory_option = click.option(
    "--dir",
    "directory",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the system lives [default: beside the context, else as for `dev up`].",
)
regions_option = click.option(
    "--region",
    "regions",
    type=NAME,
    multiple=True,
    help="A region (repeatable) [default: eu-de, us-east].",
)
cores_option = click.option(
    "--cores", type=click.IntRange(1, 9), default=2, show_default=True, help="Cores per region."
)
gateways_option = click.option(
    "--gateways",
    type=click.IntRange(1, 9),
    default=1,
    show_default=True,
    help="Gateways per region.",
)
nodes_option = click.option(
    "--nodes",
    multiple=True,
    metavar="REGION=N",
    help="Make a region's broker a cluster of 3 to 5 servers (repeatable).",
)


@click.group()
def dev() -> None:
    """A whole system on this machine, to try things out."""


@dev.command()
@directory_option
@regions_option
@cores_option
@gateways_option
@nodes_option
@click.option("--watch/--no-watch", default=True, help="Start again what dies [default: yes].")
@common
def up(
    settings: Settings,
    directory: Path | None,
    regions: tuple[str, ...],
    cores: int,
    gateways: int,
    nodes: tuple[str, ...],
    *,
    watch: bool,
) -> None:
    """Start a system and leave it running.

    Of one that runs, start what died.

    Example: kcm dev up --region eu-de --region us-east
    """
    from dataclasses import replace

    from kcm.dev import system

    options = replace(_options(directory, regions, cores, gateways, nodes), watch=watch)
    settings.leaves("the system is not complete", _shows(options.directory))
    with orderly():
        state = system.up(options, _tell)
    _show_status(settings, state.directory)
    note(settings, f"context: {state.context}", context=state.context)


@dev.command()
@directory_option
@regions_option
@cores_option
@gateways_option
@nodes_option
@click.option(
    "--layout",
    type=click.Choice(["machine", "compose"]),
    default="machine",
    show_default=True,
    help="For this machine, or for the containers of compose.yaml (its regions and numbers).",
)
@common
def init(
    settings: Settings,
    directory: Path | None,
    regions: tuple[str, ...],
    cores: int,
    gateways: int,
    nodes: tuple[str, ...],
    layout: str,
) -> None:
    """Make what a system needs, and start nothing.

    Identities, roster, passwords and configurations.
    """
    from kcm.dev import layouts, system

    options = _options(directory, regions, cores, gateways, nodes)
    if layout == "compose":
        public = layouts.write_compose(options.directory, time.time_ns() // 1_000_000)
    else:
        _, public = system.init(options)
    found = {"directory": options.directory, "root_public": public}
    emit(settings, found, ("directory", "root_public"), [(options.directory, public.hex())])


@dev.command()
@click.option("--config", type=click.Path(path_type=Path), required=True, help="A TOML file.")
@common
def provision(settings: Settings, config: Path) -> None:
    """Make a region's streams and buckets, where they are missing.

    CONFIG names region, replicas and [region_bus]; docs/deployment.md has one.
    """
    import asyncio

    from kcm_bus.config import load

    from kcm.dev.setup import ProvisionConfig
    from kcm.dev.setup import provision as make

    wanted = load(ProvisionConfig, str(config))
    again = "the same command again goes on"
    settings.leaves(f"some of region {wanted.region} may not be provisioned", again)
    asyncio.run(make(wanted))
    emit(settings, {"region": wanted.region}, ("provisioned",), [(wanted.region,)])


@dev.command()
@directory_option
@click.option(
    "--wipe", is_flag=True, help="Remove what the system made, too: all its keys are lost."
)
@common
def down(settings: Settings, directory: Path | None, *, wipe: bool) -> None:
    """End every process of the system."""
    from kcm.dev import system

    place = _chosen(settings, directory)
    settings.leaves("some of the system may still run", _shows(place))
    with orderly():
        ended = system.down(place, wipe=wipe, tell=_tell)
    emit(settings, {"ended": ended, "wiped": wipe}, ("ended",), [(name,) for name in ended])


@dev.command()
@directory_option
@common
def status(settings: Settings, directory: Path | None) -> int:
    """Show every process.

    Exit code 5 when one does not run that should.
    """
    return _show_status(settings, _chosen(settings, directory))


@dev.command()
@click.argument("name", type=NAME)
@click.option(
    "--kind",
    type=click.Choice(["pkcs11", "softkey"]),
    help="[default: SoftHSM if it is installed, else a soft key]",
)
@click.option("--uri", "bare", is_flag=True, help="Show the URI and nothing else.")
@directory_option
@common
def key(
    settings: Settings, name: str, kind: str | None, directory: Path | None, *, bare: bool
) -> None:
    """Make a customer's root key, and show the URI to link it by.

    In a real system that key exists already, and not here.

    Example: kcm l1 link acme-root "$(kcm dev key acme-root --uri)"
    """
    from kcm.dev import mark
    from kcm.dev.rootkeys import RootKeys

    place = _chosen(settings, directory)
    mark.claim(place)
    uri = RootKeys(place).create(name, kind)
    if bare and not settings.json_wanted:
        say(f"{uri}\n")
        return
    emit(settings, {"name": name, "uri": uri}, ("name", "uri"), [(name, uri)])


def _shows(directory: Path) -> str:
    """How to see what runs."""
    return f"`kcm dev status --dir {directory}` shows what runs; the same command again goes on"


def _chosen(settings: Settings, directory: Path | None) -> Path:
    """The directory that is named, else that of the chosen context, else the usual one."""
    from kcm.context import ENVIRONMENT
    from kcm.dev import system

    if directory is not None:
        return directory
    if not (settings.context_file or os.environ.get(ENVIRONMENT)):
        return system.default_directory()
    path = settings.context().path.resolve()
    if not (path.parent / ROOT_KEY).exists():
        raise Problem(
            Exit.USAGE,
            "context",
            f"{path} is not the context of a development system",
            "name a system's directory with --dir, or its context with --context",
        )
    return path.parent


def _show_status(settings: Settings, directory: Path) -> int:
    from kcm.dev import system

    processes = system.status(directory)
    columns = ("name", "role", "region", "pid", "address", "running", "log")
    rows = [[(entry | {"running": _state(entry)})[name] for name in columns] for entry in processes]
    emit(settings, processes, columns, rows)
    if not processes:
        note(settings, "no system runs here: `kcm dev up`", running=0)
    running = bool(processes) and all(one["running"] or one["left"] for one in processes)
    return Exit.OK if running else Exit.UNAVAILABLE


def _state(process: dict[str, Any]) -> bool | str:
    """Whether a process runs, or why it need not."""
    if not process["left"]:
        return bool(process["running"])
    return f"{process['left']}, still runs" if process["running"] else str(process["left"])


def _options(
    directory: Path | None,
    regions: tuple[str, ...],
    cores: int,
    gateways: int,
    nodes: tuple[str, ...],
) -> Options:
    from kcm.dev import system

    return system.Options(
        directory=directory or system.default_directory(),
        regions=regions or system.REGIONS,
        cores=cores,
        gateways=gateways,
        nodes=_nodes(nodes),
    )


def _nodes(given: tuple[str, ...]) -> dict[str, int]:
    found = {}
    for one in given:
        region, _, number = one.partition("=")
        if not number.isascii() or not number.isdigit():
            raise click.UsageError("--nodes takes a region and a number, as in eu-de=3")
        found[region] = int(number)
    return found


def _tell(line: str) -> None:
    tell(clean(line))
