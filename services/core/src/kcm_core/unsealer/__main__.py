"""``python -m kcm_core.unsealer FD SCHEME AUTHORITY``: a fork server, which only the Core starts.

``FD`` is the inherited end of a SEQPACKET socket, and the rest is the kind of root keys. The
environment contains only what the Core passed: ``KCM_DEVELOPMENT=1`` allows softkeys, and
``KCM_LOG_FORMAT`` is the format of the log. Libraries read ``SOFTHSM2_CONF`` and the variables of
the cloud SDKs.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys

from kcm_runtime.garbage_collection import collect_seldom
from kcm_runtime.hardening import make_undumpable
from kcm_runtime.logs import LineFormatter

from kcm_core.unsealer.confinement.confine import Confinement
from kcm_core.unsealer.kinds import Kind
from kcm_core.unsealer.server import Server


def main() -> int:
    """Serve until the Core closes its end; returns the exit code."""
    collect_seldom()
    log_our_own()
    make_undumpable()  # a child whose HSM module crashes leaves no core file
    # SIGINT is for the Core, which closes the socket when it has finished.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    descriptor, *kind = sys.argv[1:]
    with socket.socket(fileno=int(descriptor)) as core:
        core.set_inheritable(False)
        _serve(core, Kind(*kind))
    return 0


def _serve(core: socket.socket, kind: Kind) -> None:
    confinement = Confinement(kind, os.environ)  # before a provider's library is imported
    if confinement.lacks:
        log = logging.getLogger("kcm_core.unsealer")
        log.warning("%s: the confinement lacks: %s", kind.scheme, "; ".join(confinement.lacks))
    development = os.environ.get("KCM_DEVELOPMENT") == "1"
    Server(core, kind, confinement, development=development).run()


def log_our_own() -> None:
    """Drop third-party logging: messages of a vendor's library may contain input data."""
    handler = logging.StreamHandler()
    handler.addFilter(logging.Filter("kcm_core"))
    if os.environ.get("KCM_LOG_FORMAT") == "json":
        handler.setFormatter(LineFormatter("json"))
    else:
        handler.setFormatter(logging.Formatter("unsealer %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], force=True)
    logging.captureWarnings(True)


if __name__ == "__main__":
    sys.exit(main())
