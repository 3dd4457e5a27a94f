"""The common part of all commands: options, the context file and the access to the broker."""

from __future__ import annotations

import functools
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

import click

from kcm.cli.error_report import running
from kcm.cli.names import refuse_no_text
from kcm.cli.output import refuse_closed
from kcm.cli.signals import orderly
from kcm.cli.streams import is_terminal

if TYPE_CHECKING:
    from kcm._internal.admin import Admin
    from kcm._internal.client_context import ClientContext
    from kcm._internal.kills import Kills
    from kcm._internal.rpc import Environment
    from kcm._internal.transport import Opener

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Left:
    """The state of an unfinished change, and a hint."""

    what: str
    hint: str


@dataclass(slots=True)
class World:
    """The environment of a command, which a test replaces."""

    opener: Opener | None = None
    around: Environment | None = None
    json: bool | None = None
    """Whether the command shows JSON; ``None`` before its options are read."""
    left: Left | None = None
    """The state of a change if the command ends now; ``None`` if there is nothing to report."""
    command: str = ""
    """The name of the running command; empty before its options are read."""
    parts: list[Any] | None = None
    """The results so far of a command that shows several in one JSON document."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The common options of one run."""

    json: bool
    context_file: str | None
    world: World
    json_wanted: bool = False
    """Whether JSON was requested, and is not only the default without a terminal."""

    def leaves(self, what: str, hint: str = "") -> None:
        """Set the state of a change that an interruption or failure reports from now on."""
        self.world.left = Left(what, hint)

    def context(self) -> ClientContext:
        """Return the context; raises ``ContextError``."""
        from kcm._internal.client_context import ClientContext

        return ClientContext.load(self.context_file)

    @property
    def opener(self) -> Opener:
        """The function that connects to a broker."""
        from kcm._internal.transport import open_nats

        return self.world.opener or open_nats

    @property
    def around(self) -> Environment:
        """Clock, random numbers and sleep."""
        from kcm._internal.rpc import Environment

        return self.world.around or Environment()

    def admin(self, context: ClientContext) -> Admin:
        """Return an operator's client. The caller closes it."""
        from kcm._internal.admin import Admin

        return Admin(context, opener=self.opener, around=self.around)

    @asynccontextmanager
    async def kills(self, region: str | None) -> AsyncIterator[tuple[Admin, list[str], Kills]]:
        """Yield an operator's client, the regions in the order of asking, and the kill switch."""
        from kcm._internal.kills import Kills

        context = self.context()
        regions = context.in_order(region)
        admin = self.admin(context)
        try:
            yield admin, regions, Kills(admin, regions)
        finally:
            await admin.close()


Command = Callable[Concatenate[Settings, P], int | None]
"""A command gets the settings first, and returns its exit code, or ``None`` for 0."""


def common(function: Command[P]) -> Callable[P, int]:
    """Add the common options to a command; ``-o`` is the format."""
    return _common(function, ("--format", "-o"), to_stdout=True)


def common_at_any_cost(function: Command[P]) -> Callable[P, int]:
    """Add the common options to a kill, which runs also if stdout is closed."""
    return _common(function, ("--format", "-o"), to_stdout=True, at_any_cost=True)


def common_with_output(function: Command[P]) -> Callable[P, int]:
    """Add the common options to a command whose stdout is data and whose ``-o`` is a file."""
    return _common(function, ("--format",), to_stdout=False)


def _common(
    function: Command[P],
    format_names: tuple[str, ...],
    *,
    to_stdout: bool,
    at_any_cost: bool = False,
) -> Callable[P, int]:
    @click.option(
        *format_names,
        "fmt",
        type=click.Choice(["table", "json"]),
        help="The format of results and errors [default: table on a terminal, else json].",
    )
    @click.option(
        "--context",
        "context_file",
        metavar="FILE",
        type=click.Path(readable=False),
        help="The system's context file [default: $KCM_CONTEXT, else that of `kcm dev up`].",
    )
    @click.option("-v", "--verbose", count=True, help="Log to stderr; twice for more.")
    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> int:
        fmt, context_file = kwargs.pop("fmt"), kwargs.pop("context_file")
        verbose = kwargs.pop("verbose")
        around = click.get_current_context()
        world = around.ensure_object(World)
        world.command = running()
        terminal = is_terminal(sys.stdout if to_stdout else sys.stderr)
        as_json = world.json = fmt == "json" if fmt else not terminal
        file = context_file if isinstance(context_file, str) else None
        _log(verbose if isinstance(verbose, int) else 0)
        refuse_no_text(around)
        if to_stdout and not at_any_cost:
            refuse_closed()
        return function(Settings(as_json, file, world, fmt == "json"), *args, **kwargs) or 0

    return wrapped


def _log(verbose: int) -> None:
    import logging

    level = (logging.CRITICAL, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(
        level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr, force=True
    )
    logging.getLogger("nats").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine to its end."""
    try:
        import asyncio

        return asyncio.run(work)
    finally:
        work.close()  # an interruption may come before its start


def run_change(work: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine of a change. A signal ends it with a report of its state.

    See ``Settings.leaves``. Before its first call, the report is that nothing was changed.
    """
    world = click.get_current_context().find_object(World)
    if world is not None and world.left is None:
        world.left = Left("nothing was changed", "")
    with orderly():
        return run_async(work)


def at_a_terminal() -> bool:
    """Whether the command can ask for confirmation."""
    return is_terminal(sys.stdin) and is_terminal(sys.stderr)


def _once(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> str | None:
    if len(values) > 1:
        raise click.BadParameter("give it only once", ctx, param)
    return values[0] if values else None


once: Final[dict[str, Any]] = {"multiple": True, "callback": _once}
"""For an option with one value: to give it twice is an error, where click would use the last."""

first_region_option = click.option(
    "--region",
    metavar="REGION",
    help="The region to ask first; a hold is valid everywhere [default: the context's].",
    **once,
)
region_option = click.option(
    "--region", metavar="REGION", help="The region to ask [default: the context's].", **once
)
