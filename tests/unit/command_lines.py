"""Command lines as they stand in texts and documents, read by the command's own tree."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import click
from kcm.cli.main import cli

QUOTED = re.compile(r"`kcm ([^`]+)`")


class NoCommandError(Exception):
    """A line is none that the command takes; the text says why."""


def tree(command: click.Command = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command that does something, as the words that name it."""
    if not isinstance(command, click.Group):
        yield path
        return
    around = click.Context(command)
    for name in command.list_commands(around):
        inner = command.get_command(around, name)
        assert inner is not None
        yield from tree(inner, (*path, name))


def found(words: Sequence[str]) -> tuple[click.Command, list[str]]:
    """The command that a line begins with, and the rest of its words."""
    command: click.Command = cli
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        inner = command.get_command(click.Context(command), rest[0])
        if inner is None:
            raise NoCommandError(f"there is no command {' '.join(words)}")
        command = inner
        rest.pop(0)
    return command, rest


def options_of(command: click.Command) -> set[str]:
    """Every option that a command takes."""
    around = click.Context(command)
    return {option for param in command.get_params(around) for option in (*param.opts,)} | {
        option for param in command.get_params(around) for option in param.secondary_opts
    }


def check(words: Sequence[str], *, whole: bool = True) -> None:
    """Raise ``NoCommandError`` unless the command takes these words, whatever their values are.

    A command's name alone is a mention of it. One that is not ``whole`` may lack what it needs.
    """
    command, rest = found(words)
    around = click.Context(command)
    if not rest:
        return
    try:
        given, left, _ = command.make_parser(around).parse_args(list(rest))
    except click.UsageError as error:
        raise NoCommandError(f"{' '.join(words)}: {error.format_message()}") from None
    if left:
        raise NoCommandError(f"{' '.join(words)}: {left[0]} is too much")
    if {"help", "version"} & {name for name, value in given.items() if value}:
        return
    for param in command.params if whole else ():
        if param.required and given.get(str(param.name)) in (None, (), [], ""):
            raise NoCommandError(f"{' '.join(words)}: {param.name} is missing")
