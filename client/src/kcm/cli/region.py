"""``kcm region``: provision a region, list regions, and retire a lost one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kcm.cli.core_state import CoreState, serving
from kcm.cli.error_report import Problem
from kcm.cli.hold_progress import SHOWN
from kcm.cli.holds import tell_who_answered
from kcm.cli.kill import place, watch
from kcm.cli.names import NAME, REASON
from kcm.cli.output import advise, emit, note
from kcm.cli.settings import Settings, common, common_at_any_cost, run_async, run_change
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_schemas.admin.holds import HoldView


@click.group()
def region() -> None:
    """Provision a region, list regions, take one out of service."""


@region.command()
@click.option("--config", type=click.Path(path_type=Path), required=True, help="A TOML file.")
@click.option(
    "--timeout",
    type=click.FloatRange(1, 3600),
    default=60.0,
    show_default=True,
    help="Seconds to wait for the broker, and for a cluster to elect its leader.",
)
@common
def provision(settings: Settings, config: Path, timeout: float) -> None:
    """Create the missing streams and buckets of a region.

    CONFIG has region, replicas, [region_bus] and [vault_bus]; docs/deployment.md has an example.
    """
    import asyncio

    from kcm_runtime.config import load

    from kcm.ops.provision import ProvisionConfig
    from kcm.ops.provision import provision as make

    wanted = load(ProvisionConfig, str(config))
    again = "the same command again continues"
    settings.leaves(f"region {wanted.region} may be provisioned only in part", again)
    asyncio.run(make(wanted, timeout, lambda text: note(settings, text, waiting=text)))
    emit(settings, {"region": wanted.region}, ("provisioned",), [(wanted.region,)])


@region.command("list")
@common
def list_regions(settings: Settings) -> int:
    """Show the regions, and whether their Cores serve.

    Each Core on the roster is asked by name. Exit code 6 if a Core of a region in service does not
    serve; stderr has the reason.
    """
    regions, holds = run_async(_list(settings))
    shown = [
        {
            "region": name,
            "state": "retired" if name in holds else "in service",
            "serving": found.serving,
            "not_serving": found.not_serving,
            "hold": holds[name].hold_id.hex() if name in holds else "",
            "reason": holds[name].reason if name in holds else "",
        }
        for name, found in regions.items()
    ]
    emit(
        settings,
        shown,
        ("region", "state", "Cores that serve", "hold", "reason"),
        [
            (
                row["region"],
                row["state"],
                regions[name].text,
                str(row["hold"])[:SHOWN],
                row["reason"],
            )
            for name, row in zip(regions, shown, strict=True)
        ],
    )
    for name, found in regions.items():
        for core, why in found.not_serving.items():
            note(settings, f"{core} of region {name} does not serve: {why}", core=core, error=why)
    left = [name for name, found in regions.items() if name not in holds and not found.whole]
    if left:
        advise(
            settings,
            "start the Cores that do not serve, and use a context that has every region; "
            "`kcm registry show` shows which Cores have a baseline",
        )
    return Exit.NOT_COMPLETE if left else Exit.OK


@region.command()
@click.argument("name", type=NAME)
@click.option("--reason", type=REASON, required=True, help="A reason that is stored with the hold.")
@click.option(
    "--timeout",
    type=click.FloatRange(1, 3600),
    default=90.0,
    show_default=True,
    help="Seconds to wait until every other region has the hold.",
)
@common_at_any_cost
def retire(settings: Settings, name: str, reason: str, timeout: float) -> int:
    """Take the region NAME out of service, everywhere.

    The region stops serving when the hold arrives there. The other regions do not wait for it any
    more: they serve tenants whose region quorum includes it, and kills become complete without it.
    Use this for a lost region. `kcm lift` of the hold takes it into service again.

    \b
    Example:
      kcm region retire us-east --reason "the data centre is under water"
    """  # noqa: D301 - click wants the control character
    return run_change(_retire(settings, name, reason, timeout))


async def _list(settings: Settings) -> tuple[dict[str, CoreState], dict[str, HoldView]]:
    import asyncio

    async with settings.kills(None) as (admin, regions, kills):
        (answered, holds), found = await asyncio.gather(
            kills.listing_of(), serving(admin, sorted(regions))
        )
        tell_who_answered(settings, regions[0], answered)
        retired = {v.target: v for v in holds if v.scope == "region"}
        return found, retired


async def _retire(
    settings: Settings,
    name: str,
    reason: str,
    timeout: float,  # noqa: ASYNC109 - of the whole command, not of one call
) -> int:
    settings.leaves("no hold was placed")
    async with settings.kills(None) as (_, regions, kills):
        if name not in regions:
            raise Problem(
                Exit.REFUSED,
                "unknown_region",
                "the context has no region of this name",
                "`kcm region list` shows them",
            )
        until = settings.around.until(timeout)
        kills.ask_last(name)
        hold = kills.make("region", name, reason)
        note(settings, f"placing hold {hold.id.hex()} on region {name}", hold_id=hold.id)
        placed = await place(settings, kills, hold, until)
        return await watch(settings, kills, hold, until, placed)
