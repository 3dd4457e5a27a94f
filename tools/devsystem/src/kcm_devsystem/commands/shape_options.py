"""Options for the parts of a development system. The defaults are those of the stored shape."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from kcm.cli.names import NAME

if TYPE_CHECKING:
    from kcm_devsystem.options import Options

directory_option: Final = click.option(
    "--dir",
    "directory",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path, resolve_path=True),
    help="The system's directory [default: that of the context, else $XDG_STATE_HOME/kcm/dev].",
)

_OPTIONS: Final = (
    click.option(
        "--region",
        "regions",
        type=NAME,
        multiple=True,
        help="A region (repeatable) [default: as before, at first eu-de, us-east].",
    ),
    click.option(
        "--cores",
        type=click.IntRange(1, 9),
        help="Cores per region [default: as before, at first 2].",
    ),
    click.option(
        "--gateways",
        type=click.IntRange(1, 9),
        help="Gateways per region [default: as before, at first 1].",
    ),
    click.option(
        "--nodes",
        multiple=True,
        metavar="REGION=N",
        help="Make a region's broker a cluster of 3 to 5 servers (repeatable) [default: as before, "
        "at first 1 server].",
    ),
)


def shape_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the arguments of ``options`` to a command."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def options(
    place: Path,
    regions: tuple[str, ...],
    cores: int | None,
    gateways: int | None,
    nodes: tuple[str, ...],
    *,
    watch: bool | None = None,
) -> Options:
    """Return the options, with defaults of the stored shape. Raises ``DevError``."""
    from kcm_devsystem import shape
    from kcm_devsystem.options import Options

    known = shape.load(place)
    if known is None:
        known = Options(place, watch=True).shape
    return Options(
        directory=place,
        regions=regions or known.regions,
        cores=known.cores if cores is None else cores,
        gateways=known.gateways if gateways is None else gateways,
        applications=known.applications,
        nodes={**known.nodes, **read_nodes(nodes)},
        watch=known.watch if watch is None else watch,
    )


def read_nodes(given: tuple[str, ...]) -> dict[str, int]:
    """Return the numbers by region; raises ``UsageError``."""
    found = {}
    for one in given:
        region, _, number = one.partition("=")
        if not number.isascii() or not number.isdigit():
            raise click.UsageError("--nodes takes a region and a number, as in eu-de=3")
        found[region] = int(number)
    return found
