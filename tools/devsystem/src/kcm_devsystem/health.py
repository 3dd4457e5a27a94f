"""How a development system's processes are: they serve, or why they do not."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from kcm_devsystem import exit_causes, processes
from kcm_devsystem.instances import ready
from kcm_devsystem.state import Entry, Kind

GREETING_S: Final = 1.0
"""Seconds for a broker to greet who connects; it takes milliseconds."""

SERVING: Final = frozenset({"answers", "ready", "runs"})
"""The words for processes that do what they are there for."""


def health(root: Path, entry: Entry) -> str:
    """One word for a process that runs, or how it ended.

    ``answers``: a broker that greets; ``silent``: one that does not. ``ready``: an instance that
    has said that it serves; ``starting``: one that has not yet. ``runs``: the watcher. ``paused``:
    it was stopped by a signal. ``ended``, with its exit status or signal where anybody saw it.
    """
    if not processes.is_running(entry.process):
        return f"ended{exit_causes.noted(root, entry.process)}"
    if processes.is_paused(entry.process):
        return "paused"
    match entry.kind:
        case Kind.BROKER:
            return "answers" if _greets(entry.address) else "silent"
        case Kind.SERVICE:
            condition = ready(root, entry)
            return "ready" if condition and condition.path.exists() else "starting"
        case Kind.WATCHER:
            return "runs"


def _greets(address: str) -> bool:
    """Whether a broker at a URL says who it is, as it does before anybody asks."""
    place = urlsplit(address)
    try:
        with socket.create_connection((place.hostname, place.port), GREETING_S) as connection:
            return connection.recv(5) == b"INFO "
    except OSError:
        return False
