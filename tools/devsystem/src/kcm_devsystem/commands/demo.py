"""``kcm demo``: encryption and a kill end to end, on a temporary system."""

from __future__ import annotations

import json
from pathlib import Path

import click
from kcm.cli.error_report import Problem, clean
from kcm.cli.output import plain, say
from kcm.cli.settings import Settings, common
from kcm.cli.streams import tell
from kcm.exit_codes import Exit


@click.command()
@click.option(
    "--input",
    "source",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Your CSV file [default: synthetic rows].",
)
@click.option(
    "--l1",
    "--root-key",
    "root_key",
    type=click.Choice(["awskms", "gcpkms", "azurekv", "pkcs11", "softkey"]),
    help="The provider of the root keys [default: SoftHSM if it is installed, else a soft key]; "
    "clouds are test servers of the source tree.",
)
@common
def demo(settings: Settings, source: Path | None, root_key: str | None) -> int:
    """Demonstrate everything on a temporary system.

    Starts two regions, encrypts a file, kills a tenant, and checks that its data stays locked.

    Ends all processes that it started. Exit code 7 if a check failed.

    Example: kcm demo --input people.csv
    """
    from kcm_devsystem.demo import Options, run

    del settings  # the result is always shown as JSON
    if source is not None:
        _check(source)
    result = run(Options(input=source, tell=_tell, l1=root_key))
    say(json.dumps(plain(result), indent=2) + "\n")
    return Exit.OK if result["ok"] else Exit.CHECK_FAILED


def _check(source: Path) -> None:
    """Raise ``Problem`` for a file that is not CSV in UTF-8."""
    import csv

    from kcm_devsystem.demo.records import from_file

    try:
        from_file(source)
    except (UnicodeDecodeError, csv.Error):
        text = f"{source} is not a CSV file in UTF-8"
        raise Problem(Exit.USAGE, "usage", text, "leave out --input for synthetic rows") from None


def _tell(line: str) -> None:
    tell(clean(line))
