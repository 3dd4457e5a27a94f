"""The base of every component. NATS carries messages and is trusted with nothing else.

``nats``      connection, streams, request server, provisioning
``audit``     the emitter of audit events, their chain, and the region's audit stream
``roster``    the roster in force, and its follower in the control stream
``files``     atomic writes, secret files
``instance``  the identity of this process; ``process``, ``config`` and ``clock`` around it
``admin_endpoint``  signed requests of operators, for every service that answers them
``tasks``     background tasks of an object that lives long; ``logs`` formats the log
"""

from __future__ import annotations

import logging

for _name in ("kcm_runtime", "kcm_killswitch", "kcm_gateway", "nats"):
    # An application that embeds the engine enables the loggers that it needs.
    logging.getLogger(_name).addHandler(logging.NullHandler())
