"""``kcm registry adopt``: the choice of a Core, the confirmation, and the result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
from kcm_schemas.text import counted

from kcm.cli.core_registries import Row, as_json, ask, look, refuse, tell
from kcm.cli.error_report import Problem
from kcm.cli.output import emit, note
from kcm.cli.settings import Settings, at_a_terminal, run_async, run_change
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_schemas.admin.registry import RegistryView

    from kcm.errors import ServiceError


def adopt(
    settings: Settings, region: str, core: str | None, without: Sequence[str], *, yes: bool
) -> int:
    """Show what the Cores know, ask for confirmation, and order one Core to adopt it."""
    if not yes and not at_a_terminal():
        raise Problem(
            Exit.USAGE, "usage", "without a terminal, this cannot be confirmed: give --yes",
            f"check first with `kcm registry show --region {region}`",
        )  # fmt: skip
    settings.leaves("nothing was adopted")
    rows = run_async(look(settings, [region]))
    if not settings.json:
        tell(settings, rows)
    chosen = choose(rows, region, core, without)
    if chosen is None:
        who = "every Core that replies has a baseline" if core is None else f"{core} has a baseline"
        return _unchanged(settings, region, rows, f"{who}: there is nothing to adopt")
    if not yes and not _confirmed(settings, region, chosen):
        return _unchanged(settings, region, rows, "nothing was changed")
    answering = [row.core for row in rows if row.view is not None]
    view, after = run_change(_adopt(settings, region, chosen, answering))
    text = f"{view.core} has adopted this registry and serves; the other Cores follow automatically"
    _told(settings, region, after, view, text)
    return Exit.OK


def _confirmed(settings: Settings, region: str, chosen: RegistryView) -> bool:
    """Ask whether the registry is complete, and name the regions to compare with."""
    others = [name for name in settings.context().in_order(region) if name != region]
    if others:
        compare = f"compare with `kcm tenant list -o json --region {others[0]}`"
        click.echo(f"{', '.join(others)} may have newer entries: {compare}", err=True)
    counts = ", ".join(
        counted(number, noun)
        for number, noun in (
            (chosen.tenants, "tenant"), (chosen.links, "link"), (chosen.services, "service"),
            (chosen.apps, "application"),
        )
    )  # fmt: skip
    return click.confirm(f"Is this all of region {region}: {counts}?", err=True)


def _unchanged(settings: Settings, region: str, rows: Sequence[Row], why: str) -> int:
    _told(settings, region, rows, None, why)
    return Exit.OK


def _told(
    settings: Settings, region: str, rows: Sequence[Row], view: RegistryView | None, text: str
) -> None:
    """Show the result; as JSON it includes the present state of the Cores."""
    if not settings.json:
        note(settings, text)
        return
    value = {
        "region": region,
        "adopted": view is not None,
        "why": text,
        "core": None if view is None else view.core,
        "digest": None if view is None else view.digest,
        "cores": [as_json(row) for row in rows],
    }
    emit(settings, value, (), ())


async def _adopt(
    settings: Settings, region: str, chosen: RegistryView, cores: Sequence[str]
) -> tuple[RegistryView, list[Row]]:
    """Send the order; return the Core's reply, and the state of all Cores after it."""
    from kcm.errors import ServiceError

    admin = settings.admin(settings.context())
    show = f"`kcm registry show --region {region}` shows it"
    settings.leaves(f"it is not known whether {chosen.core} adopted its registry", show)
    try:
        view = await admin.adopt(region, chosen.core, chosen.digest)
        settings.leaves(f"{chosen.core} adopted its registry", show)
        after = await ask(admin, region, cores) if settings.json else []
    except ServiceError as error:
        raise _refused(error, region) from None
    finally:
        await admin.close()
    return view, after


def choose(
    rows: Sequence[Row], region: str, core: str | None, without: Sequence[str]
) -> RegistryView | None:
    """Return the view to adopt, or ``None`` if there is nothing to adopt."""
    for name in (*without, *([] if core is None else [core])):
        if name not in [row.core for row in rows]:
            raise Problem(
                Exit.USAGE, "usage", f"region {region} has no active Core {name}",
                f"`kcm registry show --region {region}` shows its Cores",
            )  # fmt: skip
    if core in without:
        raise Problem(
            Exit.USAGE, "usage", f"{core} is named with --core and with --without",
            "name it with one of the two",
        )  # fmt: skip
    views = [row.view for row in rows if row.view is not None]
    refuse([row for row in rows if row.core not in without])
    if not views:
        raise Problem(
            Exit.UNAVAILABLE, "unavailable", f"no Core of region {region} replies",
            "start one, and check with `kcm registry show`",
        )  # fmt: skip
    if core is not None and core not in [view.core for view in views]:
        raise Problem(Exit.UNAVAILABLE, "unavailable", f"{core} does not reply", "start it")
    if all(view.baseline for view in views):
        return None
    if silent := [row.core for row in rows if row.view is None and row.core not in without]:
        raise _silent(silent)
    empty = [view for view in views if not view.baseline and core in (None, view.core)]
    if len({view.digest for view in empty}) > 1:
        raise Problem(
            Exit.REFUSED, "conflict", f"the Cores of region {region} know different registries",
            "try again in a moment, or name the Core with the right one with --core",
        )  # fmt: skip
    return empty[0] if empty else None


def _silent(cores: Sequence[str]) -> Problem:
    """Return the error for Cores without a reply, which may have a baseline."""
    one = len(cores) == 1
    verb, it = ("does not reply", "it") if one else ("do not reply", "them")
    options = " ".join(f"--without {core}" for core in cores)
    return Problem(
        Exit.UNAVAILABLE, "unavailable", f"{', '.join(cores)} {verb} and may have a baseline",
        f"start {it}, or name {it} with {options}",
    )  # fmt: skip


def _refused(error: ServiceError, region: str) -> Problem:
    code = Exit.UNAVAILABLE if error.retryable else Exit.REFUSED
    return Problem(
        code, error.code, error.detail, f"check with `kcm registry show --region {region}`"
    )
