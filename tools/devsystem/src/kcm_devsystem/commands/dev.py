"""``kcm dev``: a whole system on this machine, for trying things out."""

from __future__ import annotations

import os
import time
from pathlib import Path
from shlex import quote
from typing import Any, Final

import click
from kcm.cli.error_report import Problem, clean
from kcm.cli.names import NAME
from kcm.cli.output import emit, note, say
from kcm.cli.settings import Settings, common
from kcm.cli.signals import orderly
from kcm.cli.streams import tell
from kcm.exit_codes import Exit

from kcm_devsystem.commands.shape_options import directory_option, options, shape_options

ROOT_KEY: Final = Path("keys") / "root"
"""What only a development system has beside its context: the operator root's private key."""


@click.group()
def dev() -> None:
    """A whole system on this machine, to try things out."""


@dev.command()
@directory_option
@shape_options
@click.option(
    "--watch/--no-watch",
    default=None,
    help="Start again what dies [default: as before, at first yes].",
)
@common
def up(
    settings: Settings,
    directory: Path | None,
    regions: tuple[str, ...],
    cores: int | None,
    gateways: int | None,
    nodes: tuple[str, ...],
    *,
    watch: bool | None,
) -> None:
    """Start a system and leave it running.

    Of one that runs, start what does not. A system that was there before comes up as it was, on the
    ports that it had; while it is down it may get more regions, Cores and Gateways.

    Example: kcm dev up --region eu-de --region us-east
    """
    from kcm_devsystem import system

    wanted = options(directory, regions, cores, gateways, nodes, watch=watch)
    settings.leaves("what this has started is ended", _shows(wanted.directory))
    with orderly():
        state = system.up(wanted, _tell)
    _show_status(settings, state.directory)
    note(settings, f"context: {state.context}", context=state.context)


@dev.command()
@directory_option
@shape_options
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
    cores: int | None,
    gateways: int | None,
    nodes: tuple[str, ...],
    layout: str,
) -> None:
    """Make what a system needs, and start nothing.

    Identities, roster, passwords and configurations.
    """
    from kcm_devsystem import layouts, system

    wanted = options(directory, regions, cores, gateways, nodes)
    if layout == "compose":
        public = layouts.write_compose(wanted.directory, time.time_ns() // 1_000_000)
    else:
        _, public = system.init(wanted, _tell)
    found = {"directory": wanted.directory, "root_public": public}
    emit(settings, found, ("directory", "root_public"), [(wanted.directory, public.hex())])


@dev.command()
@directory_option
@click.option(
    "--wipe", is_flag=True, help="Remove what the system made, too: all its keys are lost."
)
@common
def down(settings: Settings, directory: Path | None, *, wipe: bool) -> None:
    """End every process of the system."""
    from kcm_devsystem import system

    place = _chosen(settings, directory)
    settings.leaves("some of the system may still run", _shows(place))
    with orderly():
        ended = system.down(place, wipe=wipe, tell=_tell)
    emit(settings, {"ended": ended, "wiped": wipe}, ("ended",), [(name,) for name in ended])


@dev.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@directory_option
@common
def restart(settings: Settings, names: tuple[str, ...], directory: Path | None) -> None:
    """End processes of the system and start them again.

    With their configurations as they are now, edited ones too. `kcm dev status` shows the names:
    of instances and brokers. Services end before brokers, and start after them.

    Example: kcm dev restart core-eu-de-1 eu-de
    """
    from kcm_devsystem import system

    place = _chosen(settings, directory)
    settings.leaves("not all of it runs again", "`kcm dev up` starts what does not run")
    with orderly():
        done = system.restart(place, names, _tell)
    emit(settings, {"restarted": done}, ("restarted",), [(name,) for name in done])


@dev.command()
@directory_option
@common
def status(settings: Settings, directory: Path | None) -> int:
    """Show every process, and how it is.

    A broker answers or is silent, an instance is ready or still starting. Where the watcher saw how
    a process ended, its exit status or signal is shown. Exit code 5 when one does not serve that
    should.
    """
    return _show_status(settings, _chosen(settings, directory))


@dev.command()
@click.argument("name", type=NAME)
@click.option(
    "--kind",
    type=click.Choice(["pkcs11", "softkey"]),
    help="[default: SoftHSM if it is installed, else a soft key]",
)
@click.option(
    "--uri", "shown", flag_value="uri", default=None, help="Show the URI and nothing else."
)
@click.option(
    "--env",
    "shown",
    flag_value="env",
    help="Show what `kcm l1 check` needs in the environment, as a shell's commands.",
)
@directory_option
@common
def key(
    settings: Settings, name: str, kind: str | None, shown: str | None, directory: Path | None
) -> None:
    """Make a customer's root key, and show the URI to link it by.

    With the commands that try the key from here. In a real system that key exists already, and not
    here. A key of that name that is there stays.

    \b
    Example: kcm l1 link acme-root "$(kcm dev key acme-root --uri)"
             eval "$(kcm dev key acme-root --env)"
    """  # noqa: D301 - click wants the control character
    from kcm_devsystem import mark
    from kcm_devsystem.root_keys import RootKeys

    place = _chosen(settings, directory).resolve()
    mark.claim(place)
    keys = RootKeys(place)
    uri = keys.create(name, kind)
    environment = keys.environment_of(uri)
    exports = [f"export {variable}={quote(value)}" for variable, value in environment.items()]
    if settings.json if shown is None else settings.json_wanted:
        emit(settings, {"name": name, "uri": uri, "environment": environment}, (), ())
    elif shown is None:
        emit(settings, {}, ("name", "uri"), [(name, uri)])
        say("\n".join([*exports, f"kcm l1 check {quote(uri)}"]) + "\n")
    else:
        for line in [uri] if shown == "uri" else exports:
            say(f"{line}\n")


def _shows(directory: Path) -> str:
    """How to see what runs."""
    return f"`kcm dev status --dir {directory}` shows what runs; the same command again goes on"


def _chosen(settings: Settings, directory: Path | None) -> Path:
    """The directory that is named, else that of the chosen context, else the usual one."""
    from kcm._internal.client_context import ENVIRONMENT

    from kcm_devsystem import system

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
    from kcm_devsystem import system
    from kcm_devsystem.health import SERVING

    processes = system.status(directory)
    columns = ("name", "role", "region", "pid", "address", "health", "log")
    rows = [[(entry | {"health": _state(entry)})[name] for name in columns] for entry in processes]
    emit(settings, processes, columns, rows)
    if not processes:
        note(settings, "no system runs here: `kcm dev up`", running=0)
    serves = bool(processes) and all(one["health"] in SERVING or one["left"] for one in processes)
    return Exit.OK if serves else Exit.UNAVAILABLE


def _state(process: dict[str, Any]) -> str:
    """How a process is, or why it need not run."""
    if not process["left"]:
        return str(process["health"])
    return f"{process['left']}, still runs" if process["running"] else str(process["left"])


def _tell(line: str) -> None:
    tell(clean(line))
