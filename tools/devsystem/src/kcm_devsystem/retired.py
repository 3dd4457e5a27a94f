"""The retired instances of a development system, by the highest roster in its directory.

That is the context's roster, which ``kcm roster retire`` and ``put`` replace, or the copy that an
instance accepted last. A retired instance ends at its start, so it is neither waited for nor
restarted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from kcm._internal.client_context import ClientContext, ContextError
from kcm_runtime.roster.store import ROSTER
from kcm_schemas.roster import Roster
from kcm_trust.verify import STATEMENT_MAX, Untrusted

RETIRED: Final = "retired"
ABSENT: Final = "not on the roster"


def highest(root: Path) -> Roster | None:
    """Return the highest roster in the directory that the pinned root signed, or ``None``."""
    try:
        context = ClientContext.load(root / "context.toml")
    except ContextError:
        return None
    found: Roster | None = None
    for path in (context.roster_path, *sorted((root / "state").glob(f"*/{ROSTER}"))):
        for raw in _read(path):
            # Ignore a bad roster here. Its instance refuses and reports it at its start.
            with suppress(Untrusted):
                roster = context.believe(raw)
                if found is None or roster.version > found.version:
                    found = roster
    return found


def why_not(roster: Roster | None, instance: str) -> str:
    """Return why an instance is not active by this roster; empty if it is, or without a roster.

    A broker is not an instance: its name is empty, and it is on no roster.
    """
    if roster is None or not instance:
        return ""
    for entry in roster.instances:
        if entry.instance == instance:
            return "" if entry.retired is None else RETIRED
    return ABSENT


def _read(path: Path) -> Iterator[bytes]:
    with suppress(OSError), path.open("rb") as file:
        yield file.read(STATEMENT_MAX + 1)
