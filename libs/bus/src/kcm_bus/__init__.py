"""The bus: a supervised connection, serving and asking, following streams, and audit emitting.

NATS carries messages and is trusted with nothing else.
"""

from __future__ import annotations

import logging

for _name in ("kcm_bus", "kcm_gateway", "nats"):
    logging.getLogger(_name).addHandler(logging.NullHandler())  # whoever wants lines, asks for them
