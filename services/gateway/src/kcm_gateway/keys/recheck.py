"""The repeated check of an operation's permit, as the pool and the lookup of keys see it.

An operation is admitted once, by the engine. The parts below the engine get its permit and this
function only, so they cannot admit it again: a permit that an operation got after a purge would
accept the keys of the new generation for work that began in the old one.
"""

from __future__ import annotations

from collections.abc import Callable

from kcm_killswitch.model.admission import Permit

Recheck = Callable[[Permit], float]
"""Returns the seconds for which an output may be accepted; raises ``KcmError`` if none may be:
``tenant_killed``, ``tenant_unavailable`` or ``unavailable``."""
