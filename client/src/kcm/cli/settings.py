"""What every command has in common: options, the context file and the way to the broker."""

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
    """What is known of a change that is not finished, and how to see more."""

    what: str
    hint: str


@dataclass(slots=True)
class World:
    """What lies outside of a command; a test brings its own."""

    opener: Opener | None = None
    around: Environment | None = None
    json: bool | None = None
    """Whether the command that runs shows JSON; unknown before its options are read."""
    left: Left | None = None
    """What the command leaves behind when it ends now; none: nothing that has to be said."""
    command: str = ""
    """The name of the command that runs; unknown until then, too."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The common options of one run."""

    json: bool
    context_file: str | None
    world: World
    json_wanted: bool = False
    """Whether JSON was asked for, and is not only shown because nobody watches."""

    def leaves(self, what: str, hint: str = "") -> None:
        """What is said of a change when the command is interrupted, or fails, from now on."""
        self.world.left = Left(what, hint)

    def context(self) -> ClientContext:
        """The context; raises ``ContextError``."""
        from kcm._internal.client_context import ClientContext

        return ClientContext.load(self.context_file)

    @property
    def opener(self) -> Opener:
        """How to connect to a broker."""
        from kcm._internal.transport import open_nats

        return self.world.opener or open_nats

    @property
    def around(self) -> Environment:
        """Time and chance."""
        from kcm._internal.rpc import Environment

        return self.world.around or Environment()

    def admin(self, context: ClientContext) -> Admin:
        """An operator's access, to be closed."""
        from kcm._internal.admin import Admin

        return Admin(context, opener=self.opener, around=self.around)

    @asynccontextmanager
    async def kills(self, region: str | None) -> AsyncIterator[tuple[Admin, list[str], Kills]]:
        """An operator's access, the regions in the order of asking, and their kill switch."""
        from kcm._internal.kills import Kills

        context = self.context()
        regions = context.in_order(region)
        admin = self.admin(context)
        try:
            yield admin, regions, Kills(admin, regions)
        finally:
            await admin.close()


Command = Callable[Concatenate[Settings, P], int | None]
"""A command gets the settings first, and returns its exit code, none for 0."""


def common(function: Command[P]) -> Callable[P, int]:
    """Give a command the common options, ``-o`` for the format among them."""
    return _common(function, ("--format", "-o"), to_stdout=True)


def common_at_any_cost(function: Command[P]) -> Callable[P, int]:
    """The same for a kill: it goes ahead where its result can be shown to nobody."""
    return _common(function, ("--format", "-o"), to_stdout=True, at_any_cost=True)


def common_with_output(function: Command[P]) -> Callable[P, int]:
    """The same for commands whose stdout is data and whose ``-o`` names a file."""
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
        help="How results and errors are shown [default: table on a terminal, else json].",
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
    """Run a command's work to its end."""
    try:
        import asyncio

        return asyncio.run(work)
    finally:
        work.close()  # it never began, when an interruption came before


def run_change(work: Coroutine[Any, Any, T]) -> T:
    """The same for a change: a signal that ends it is heard, so that it can be said what is done.

    See ``Settings.leaves``: before the work says so for the first time nothing is changed.
    """
    world = click.get_current_context().find_object(World)
    if world is not None and world.left is None:
        world.left = Left("nothing was changed", "")
    with orderly():
        return run_async(work)


def at_a_terminal() -> bool:
    """Whether somebody can be asked."""
    return is_terminal(sys.stdin) and is_terminal(sys.stderr)


def _once(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> str | None:
    if len(values) > 1:
        raise click.BadParameter("give it once: one value is taken", ctx, param)
    return values[0] if values else None


once: Final[dict[str, Any]] = {"multiple": True, "callback": _once}
"""Of an option with one value: given twice it is wrong usage, where the last one would count."""

first_region_option = click.option(
    "--region",
    metavar="REGION",
    help="The region to ask first; a hold counts everywhere [default: the context's].",
    **once,
)
region_option = click.option(
    "--region", metavar="REGION", help="The region to ask [default: the context's].", **once
)
