"""Commands that other distributions add to ``kcm``, by the entry point ``kcm.commands``."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Final

import click

GROUP: Final = "kcm.commands"

KNOWN: Final = {"dev": "kcm-devsystem", "demo": "kcm-devsystem"}
"""Commands of this project that are not in every installation, by the distribution they are in."""


class Extensible(click.Group):
    """A group whose own commands come first; an extension is loaded when it is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command's name, those of extensions included."""
        return sorted({*super().list_commands(ctx), *entry_points(group=GROUP).names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Find a command; raises ``UsageError`` for one of a distribution that is not installed."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        for entry in entry_points(group=GROUP, name=cmd_name):
            command: click.Command = entry.load()
            return command
        if cmd_name in KNOWN:
            raise click.UsageError(f"{cmd_name} is a command of {KNOWN[cmd_name]}: install it")
        return None
