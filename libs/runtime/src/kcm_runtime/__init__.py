"""What every component runs on. NATS carries messages and is trusted with nothing else.

``nats``      connection, streams, request server, provisioning
``audit``     the emitter of audit events, their chain, and the region's audit stream
``roster``    the roster that this instance believes, and its follower
``files``     atomic writes, secret files
``instance``  who this process is; ``process``, ``config`` and ``clock`` around it
"""

from __future__ import annotations

import logging

for _name in ("kcm_runtime", "kcm_killswitch", "kcm_gateway", "nats"):
    # An application that embeds the engine enables the loggers that it wants.
    logging.getLogger(_name).addHandler(logging.NullHandler())
