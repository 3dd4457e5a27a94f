"""A name on the command line: of a tenant, a service, a link, a region or somebody."""

from __future__ import annotations

from typing import Final

import click

from kcm.exit_codes import Exit

LOOKS_LIKE: Final = "a name has 1 to 63 characters of a-z, 0-9 and -, as in acme-prod"
"""What a name looks like."""

SHOWN_MAX: Final = 80
"""Characters that are shown of what is no name."""


def no_name(value: str) -> str:
    """Say that a value is no name."""
    shown = value if len(value) <= SHOWN_MAX else f"{value[:SHOWN_MAX]}…"
    return f"'{shown}' is no name"


class NameType(click.ParamType[str]):
    """Refuses what is no name before anybody is asked."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name, or say what one looks like."""
        from kcm_schemas.names import is_name

        from kcm.cli.error_report import Problem

        if is_name(value):
            return value
        place = "" if param is None or ctx is None else f"{_place(param, ctx)}: "
        raise Problem(Exit.USAGE, "malformed", f"{place}{no_name(value)}", LOOKS_LIKE)


def _place(param: click.Parameter, ctx: click.Context) -> str:
    """Where the value stands: an option, or an argument without the brackets of an optional one."""
    if isinstance(param, click.Argument):
        return f"'{param.metavar or param.human_readable_name.upper()}'"
    return param.get_error_hint(ctx)


NAME: Final = NameType()


class BytesType(click.ParamType[str]):
    """A text that may be any bytes: what is no UTF-8 in it is escaped as Python does."""

    name = "text"


BYTES: Final = BytesType()


def refuse_no_text(ctx: click.Context) -> None:
    """Raise ``Problem`` for a value that is no UTF-8 text, unless it is a path or ``BYTES``."""
    from kcm.cli.error_report import Problem

    for param in ctx.command.params:
        if isinstance(param.type, click.Path | BytesType):
            continue
        value = ctx.params.get(param.name or "")
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, str) and not _is_text(one):
                raise Problem(Exit.USAGE, "malformed", f"{_place(param, ctx)} is no UTF-8 text")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
