"""``kcm dev``: a whole system on this machine, for development."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

import click
from kcm.cli.error_report import clean
from kcm.cli.names import NAME
from kcm.cli.output import advise, emit, note, say
from kcm.cli.settings import Settings, common
from kcm.cli.signals import orderly
from kcm.cli.streams import tell
from kcm.exit_codes import Exit

from kcm_devsystem.commands.place import chosen, used_alone, working, working_hints
from kcm_devsystem.commands.shape_options import directory_option, options, shape_options


@click.group()
def dev() -> None:
    """Run a whole system on this machine, for development."""


@dev.command()
@directory_option
@shape_options
@click.option(
    "--watch/--no-watch",
    default=None,
    help="Restart processes that end [default: as before, at first yes].",
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

    If a system runs, start its missing processes. A system that was stopped starts again with the
    same parts and ports. While it is down, it may get more regions, Cores and Gateways.

    Example: kcm dev up --region eu-de --region us-east
    """
    from kcm_devsystem import system

    place = chosen(settings, directory, new=True)
    with working_hints(place):
        wanted = options(place, regions, cores, gateways, nodes, watch=watch)
        settings.leaves("the processes that this command started were ended", _shows(place))
        with orderly():
            state = system.up(wanted, _tell)
    found = {"directory": state.directory, "context": state.context}
    _show_status(settings, state.directory, found)
    if not settings.json:
        note(settings, f"context: {state.context}{_to_use(state.context)}")


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
    """Create the files of a system, and start nothing.

    The files are identities, roster, credentials, certificates and configurations.
    """
    from kcm_devsystem import containers, system

    place = chosen(settings, directory, new=True)
    with working_hints(place):
        wanted = options(place, regions, cores, gateways, nodes)
        if layout == "compose":
            public = containers.write_compose(wanted.directory, time.time_ns() // 1_000_000)
        else:
            _, public = system.init(wanted, _tell)
    found = {"directory": wanted.directory, "root_public": public}
    emit(settings, found, ("directory", "root_public"), [(wanted.directory, public.hex())])


@dev.command()
@directory_option
@click.option("--wipe", is_flag=True, help="Remove the system's files, too. All its keys are lost.")
@common
def down(settings: Settings, directory: Path | None, *, wipe: bool) -> None:
    """End every process of the system."""
    from kcm_devsystem import system

    place = chosen(settings, directory)
    settings.leaves("some processes of the system may still run", _shows(place))
    with working_hints(place), orderly():
        ended = system.down(place, wipe=wipe, tell=_tell)
    emit(settings, {"ended": ended, "wiped": wipe}, ("ended",), [(name,) for name in ended])


@dev.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@directory_option
@common
def restart(settings: Settings, names: tuple[str, ...], directory: Path | None) -> None:
    """Restart processes of the system.

    They start with their present configurations, edited ones too. `kcm dev status` shows the names
    of instances and brokers. Components end before brokers, and start after them.

    Example: kcm dev restart core-eu-de-1 eu-de
    """
    from kcm_devsystem import system

    place = chosen(settings, directory)
    starts = working(place, "`kcm dev up` starts missing processes")
    settings.leaves("some processes do not run", starts)
    with working_hints(place), orderly():
        done = system.restart(place, names, _tell)
    emit(settings, {"restarted": done}, ("restarted",), [(name,) for name in done])


@dev.command()
@directory_option
@common
def status(settings: Settings, directory: Path | None) -> int:
    """Show every process and its health.

    A broker answers or is silent; an instance is ready or still starting. If the watcher saw the
    end of a process, its exit status or signal is shown. Exit code 5 if a process is not healthy.
    """
    return _show_status(settings, chosen(settings, directory))


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
    help="Show the environment for `kcm l1 check`, as shell commands.",
)
@directory_option
@common
def key(
    settings: Settings, name: str, kind: str | None, shown: str | None, directory: Path | None
) -> None:
    """Create a customer's root key, and show its URI.

    Also shows the commands that test the key. In production, the customer has created the key
    elsewhere. An existing key of this name is kept.

    \b
    Example: kcm l1 link acme-root "$(kcm dev key acme-root --uri)"
             eval "$(kcm dev key acme-root --env)"
    """  # noqa: D301 - click wants the control character
    from kcm_devsystem import mark
    from kcm_devsystem.root_keys import RootKeys

    place = chosen(settings, directory).resolve()
    with working_hints(place):
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


def _shows(place: Path) -> str:
    """Return the hint after an interruption."""
    return working(place, "`kcm dev status` shows what runs; the same command again continues")


def _to_use(context: Path) -> str:
    """Return how other commands get a context, if it is not the one that they use."""
    if used_alone(context.parent):
        return ""
    return f"; for other commands: export KCM_CONTEXT={quote(str(context))}"


def _show_status(settings: Settings, place: Path, found: Mapping[str, object] | None = None) -> int:
    """Show the processes; as JSON in one object with ``found``, if there is such a result."""
    from kcm_devsystem import system
    from kcm_devsystem.health import SERVING

    with working_hints(place):
        processes = system.status(place)
    columns = ("name", "role", "region", "pid", "address", "health", "log")
    rows = [[(entry | {"health": _state(entry)})[name] for name in columns] for entry in processes]
    emit(settings, {**found, "processes": processes} if found else processes, columns, rows)
    if not processes:
        note(settings, working(place, "no system runs here: `kcm dev up`"), running=0)
    serves = bool(processes) and all(one["health"] in SERVING or one["left"] for one in processes)
    if serves:
        return Exit.OK
    if processes:
        hint = "`kcm dev up` starts missing processes, `kcm dev restart NAME` restarts others"
        advise(settings, f"{working(place, hint)}; `log` names the log of each")
    return Exit.UNAVAILABLE


def _state(process: dict[str, Any]) -> str:
    """Return the health of a process, or why it need not run."""
    if not process["left"]:
        return str(process["health"])
    return f"{process['left']}, still runs" if process["running"] else str(process["left"])


def _tell(line: str) -> None:
    tell(clean(line))
