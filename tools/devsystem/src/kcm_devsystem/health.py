"""The health of a development system's processes."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from kcm_deployment.broker_files import BACKBONE, LINKS

from kcm_devsystem import exit_causes, processes
from kcm_devsystem.instances import ready
from kcm_devsystem.state import Entry, Kind

GREETING_S: Final = 1.0
"""Seconds for a broker's greeting after a connection; usually milliseconds."""

SERVING: Final = frozenset({"answers", "ready", "runs"})
"""The states of healthy processes."""


def health(root: Path, entry: Entry) -> str:
    """Return the state of a process in one word, or how it ended.

    ``answers``: a broker that sends its greeting; ``silent``: one that does not. ``ready``: an
    instance that serves; ``starting``: one that does not serve yet. ``runs``: the watcher.
    ``paused``: stopped by a signal. ``ended``, with the exit status or signal if it is known.
    """
    if not processes.is_running(entry.process):
        return f"ended{exit_causes.noted(root, entry.process)}"
    if processes.is_paused(entry.process):
        return "paused"
    match entry.kind:
        case Kind.BROKER:
            return "answers" if _greets(root, entry) else "silent"
        case Kind.INSTANCE:
            condition = ready(root, entry)
            return "ready" if condition and condition.path.exists() else "starting"
        case Kind.WATCHER:
            return "runs"


def _greets(root: Path, entry: Entry) -> bool:
    """Whether a broker sends its greeting, which comes after the handshake and before any request.

    The backbone wants the certificate of a region's link.
    """
    place, files = urlsplit(entry.address), root / "certificates"
    try:
        ca = files / (entry.region or BACKBONE) / "ca.pem"
        tls = ssl.create_default_context(cafile=str(ca))
        if not entry.region:
            link = min(set((files / LINKS).glob("*.pem")) - {files / LINKS / "ca.pem"})
            tls.load_cert_chain(link, link.with_suffix(".key"))
        with (
            socket.create_connection((place.hostname, place.port), GREETING_S) as plain,
            tls.wrap_socket(plain, server_hostname=place.hostname) as connection,
        ):
            return connection.recv(5) == b"INFO "
    except (OSError, ValueError):  # also without any link
        return False
