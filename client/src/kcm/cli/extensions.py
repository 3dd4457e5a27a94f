"""Commands of other distributions, found by the entry point ``kcm.commands``."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Final

import click

GROUP: Final = "kcm.commands"

KNOWN: Final = {
    "broker": "kcm-deployment",
    "demo": "kcm-devsystem",
    "dev": "kcm-devsystem",
    "doctor": "kcm-deployment",
    "init": "kcm-deployment",
}
"""Commands of this project that are not in every installation, with their distributions."""


class Extensible(click.Group):
    """A group whose own commands have priority. An extension is loaded when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, extensions included."""
        return sorted({*super().list_commands(ctx), *entry_points(group=GROUP).names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; raises ``UsageError`` if its distribution is not installed."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        for entry in entry_points(group=GROUP, name=cmd_name):
            command: click.Command = entry.load()
            return command
        if cmd_name in KNOWN:
            text = f"{cmd_name} is a command of {KNOWN[cmd_name]}, which is not installed"
            raise click.UsageError(text)
        return None
