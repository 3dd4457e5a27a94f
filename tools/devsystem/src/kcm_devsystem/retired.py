"""Who of a development system does not act any more, by the highest roster that lies in it.

That is the context's roster, which ``kcm roster retire`` and ``put`` replace, or the copy that an
instance accepted last. Who is retired ends at its start: nobody waits for it or starts it again.
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
    """The highest roster in the system's directory that its pinned root signed, if there is one."""
    try:
        context = ClientContext.load(root / "context.toml")
    except ContextError:
        return None
    found: Roster | None = None
    for path in (context.roster_path, *sorted((root / "state").glob(f"*/{ROSTER}"))):
        for raw in _read(path):
            # What is not believed is the instance's to say, which refuses it at its start.
            with suppress(Untrusted):
                roster = context.believe(raw)
                if found is None or roster.version > found.version:
                    found = roster
    return found


def why_not(roster: Roster | None, instance: str) -> str:
    """Why an instance does not act by this roster; empty when it acts, or nobody knows.

    A broker is no instance: its name is empty, and it is on no roster.
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
