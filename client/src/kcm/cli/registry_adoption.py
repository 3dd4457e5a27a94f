"""RegistryAdoption a registry: which Core's, whether it is all, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

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
    """Show what the Cores know, ask, and let one of them remember it."""
    if not yes and not at_a_terminal():
        raise Problem(
            Exit.USAGE, "usage", "nobody can be asked here whether that is all: give --yes",
            f"look first with `kcm registry show --region {region}`",
        )  # fmt: skip
    settings.leaves("nothing was adopted")
    rows = run_async(look(settings, [region]))
    if not settings.json:
        tell(settings, rows)
    chosen = choose(rows, region, core, without)
    if chosen is None:
        who = "every Core that answers has memory" if core is None else f"{core} has memory"
        return _unchanged(settings, region, rows, f"{who}: there is nothing to adopt")
    if not yes and not _confirmed(settings, region, chosen):
        return _unchanged(settings, region, rows, "nothing was changed")
    answering = [row.core for row in rows if row.view is not None]
    view, after = run_change(_adopt(settings, region, chosen, answering))
    text = f"{view.core} remembers this registry and serves; the other Cores follow by themselves"
    _told(settings, region, after, view, text)
    return Exit.OK


def _confirmed(settings: Settings, region: str, chosen: RegistryView) -> bool:
    """Ask whether that is all, and say what cannot be seen from here."""
    others = [name for name in settings.context().in_order(region) if name != region]
    if others:
        compare = f"compare with `kcm tenant list -o json --region {others[0]}`"
        click.echo(f"{', '.join(others)} may know newer records: {compare}", err=True)
    counts = f"{chosen.tenants} tenants, {chosen.links} links, {chosen.services} services"
    return click.confirm(f"Is that all of region {region}: {counts}?", err=True)


def _unchanged(settings: Settings, region: str, rows: Sequence[Row], why: str) -> int:
    _told(settings, region, rows, None, why)
    return Exit.OK


def _told(
    settings: Settings, region: str, rows: Sequence[Row], view: RegistryView | None, text: str
) -> None:
    """The result: as JSON one document, with the Cores as they are now."""
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
    """What the Core says that remembers it now, and what those that answered know then."""
    from kcm.errors import ServiceError

    admin = settings.admin(settings.context())
    show = f"`kcm registry show --region {region}` says so"
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
    """The view that is to be adopted; ``None`` where there is nothing to adopt."""
    for name in (*without, *([] if core is None else [core])):
        if name not in [row.core for row in rows]:
            raise Problem(Exit.USAGE, "usage", f"region {region} has no Core {name} that acts")
    if core in without:
        raise Problem(Exit.USAGE, "usage", f"{core} is named with --core and with --without")
    views = [row.view for row in rows if row.view is not None]
    refuse([row for row in rows if row.core not in without])
    if not views:
        raise Problem(
            Exit.UNAVAILABLE, "unavailable", f"no Core of region {region} answers",
            "start one, and look with `kcm registry show`",
        )  # fmt: skip
    if core is not None and core not in [view.core for view in views]:
        raise Problem(Exit.UNAVAILABLE, "unavailable", f"{core} does not answer", "start it")
    if all(view.memory for view in views):
        return None
    if silent := [row.core for row in rows if row.view is None and row.core not in without]:
        raise _silent(silent)
    empty = [view for view in views if not view.memory and core in (None, view.core)]
    if len({view.digest for view in empty}) > 1:
        raise Problem(
            Exit.REFUSED, "conflict", f"the Cores of region {region} do not know the same",
            "look again in a moment, or name the one that is right with --core",
        )  # fmt: skip
    return empty[0] if empty else None


def _silent(cores: Sequence[str]) -> Problem:
    """Cores that may remember what nobody else knows."""
    one = len(cores) == 1
    verb, it = ("does not answer", "it") if one else ("do not answer", "them")
    options = " ".join(f"--without {core}" for core in cores)
    return Problem(
        Exit.UNAVAILABLE, "unavailable", f"{', '.join(cores)} {verb} and may have memory",
        f"start {it}, or name {it} with {options}",
    )  # fmt: skip


def _refused(error: ServiceError, region: str) -> Problem:
    code = Exit.UNAVAILABLE if error.retryable else Exit.REFUSED
    return Problem(
        code, error.code, error.detail, f"look again with `kcm registry show --region {region}`"
    )
