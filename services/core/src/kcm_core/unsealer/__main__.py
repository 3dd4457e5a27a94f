"""``python -m kcm_core.unsealer FD``: the fork server, started by the Core and by nobody else.

``FD`` is the inherited end of a SEQPACKET socket pair. The environment is what the Core passed
explicitly, and nothing of its own: ``KCM_DEVELOPMENT=1`` allows softkeys, ``SOFTHSM2_CONF`` and
the cloud SDKs' variables are read by the libraries.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys

from kcm_runtime.hardening import make_undumpable

from kcm_core.unsealer.server import Server


def main() -> int:
    """Serve until the Core closes its end."""
    log_our_own()
    make_undumpable()  # a child whose HSM module crashes leaves no core file
    # Ctrl-C is for the Core, which closes the socket when it has finished.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as core:
        core.set_inheritable(False)
        Server(core, development=os.environ.get("KCM_DEVELOPMENT") == "1").run()
    return 0


def log_our_own() -> None:
    """Let no vendor's library write to the Core's stderr: its words may hold what it was given."""
    handler = logging.StreamHandler()
    handler.addFilter(logging.Filter("kcm_core"))
    logging.basicConfig(
        format="unsealer %(levelname)s %(name)s: %(message)s", handlers=[handler], force=True
    )
    logging.captureWarnings(True)


if __name__ == "__main__":
    sys.exit(main())
