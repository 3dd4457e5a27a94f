"""``kcm demo``: the main job end to end, on a system that is started for it and ended again."""

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
    help="A CSV file of yours [default: one that is made up].",
)
@click.option(
    "--l1",
    "--root-key",
    "root_key",
    type=click.Choice(["awskms", "gcpkms", "azurekv", "pkcs11", "softkey"]),
    help="What holds the root keys [default: SoftHSM if it is installed, else a soft key]; clouds "
    "are test servers, in the source tree.",
)
@common
def demo(settings: Settings, source: Path | None, root_key: str | None) -> int:
    """Show it all on a system of its own.

    Starts two regions, encrypts a file, kills a tenant, and sees that nothing of it opens.

    Ends everything that it started. Exit code 7 when something was not as it should be.

    Example: kcm demo --input people.csv
    """
    from kcm_devsystem.demo import Options, run

    del settings  # the result is an object of figures: it is shown as JSON in any case
    if source is not None:
        _check(source)
    result = run(Options(input=source, tell=_tell, l1=root_key))
    say(json.dumps(plain(result), indent=2) + "\n")
    return Exit.OK if result["ok"] else Exit.CHECK_FAILED


def _check(source: Path) -> None:
    """Raise ``Problem`` where the file is none that can be demonstrated with."""
    import csv

    from kcm_devsystem.demo.records import from_file

    try:
        from_file(source)
    except (UnicodeDecodeError, csv.Error):
        text = f"{source} is no CSV file in UTF-8"
        raise Problem(Exit.USAGE, "usage", text, "leave out --input: rows are made up") from None


def _tell(line: str) -> None:
    tell(clean(line))
