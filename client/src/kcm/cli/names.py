"""Names and texts on the command line: what has no valid form is refused before any request."""

from __future__ import annotations

from typing import Final

import click

from kcm.exit_codes import Exit

LOOKS_LIKE: Final = "a name has 1 to 63 characters of a-z, 0-9 and -, as in acme-prod"
"""The form of a name."""

SHOWN_MAX: Final = 80
"""Characters of a bad name that an error shows."""


def no_name(value: str) -> str:
    """Return the error text for a bad name."""
    shown = value if len(value) <= SHOWN_MAX else f"{value[:SHOWN_MAX]}…"
    return f"'{shown}' is not a name"


class NameType(click.ParamType[str]):
    """A parameter type that refuses a bad name before any request."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name; raises ``Problem`` with the form of a name."""
        from kcm_schemas.names import is_name

        from kcm.cli.error_report import Problem

        if is_name(value):
            return value
        place = "" if param is None or ctx is None else f"{_place(param, ctx)}: "
        raise Problem(Exit.USAGE, "malformed", f"{place}{no_name(value)}", LOOKS_LIKE)


def _place(param: click.Parameter, ctx: click.Context) -> str:
    """Return the option of a value, or its argument without brackets."""
    if isinstance(param, click.Argument):
        return f"'{param.metavar or param.human_readable_name.upper()}'"
    return param.get_error_hint(ctx)


NAME: Final = NameType()


class BytesType(click.ParamType[str]):
    """A parameter type for any bytes. Bytes that are not UTF-8 are escaped as Python does."""

    name = "text"


BYTES: Final = BytesType()


class ReasonType(click.ParamType[str]):
    """A parameter type for a reason. One without a visible character is refused."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the reason; raises ``Problem``."""
        from kcm.cli.error_report import Problem

        if any(one.isprintable() and not one.isspace() for one in value) or not _is_text(value):
            return value  # ``refuse_no_text`` refuses what is no text
        place = "" if param is None or ctx is None else f"{_place(param, ctx)}: "
        raise Problem(
            Exit.USAGE, "usage", f"{place}the reason is empty",
            "nothing was done; say in a few words why, because the audit log keeps it",
        )  # fmt: skip


REASON: Final = ReasonType()


def refuse_no_text(ctx: click.Context) -> None:
    """Raise ``Problem`` for a value that is not UTF-8, unless it is a path or ``BYTES``."""
    from kcm.cli.error_report import Problem

    for param in ctx.command.params:
        if isinstance(param.type, click.Path | BytesType):
            continue
        value = ctx.params.get(param.name or "")
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, str) and not _is_text(one):
                text = f"{_place(param, ctx)} is not UTF-8 text"
                raise Problem(Exit.USAGE, "malformed", text, "give it in UTF-8")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
