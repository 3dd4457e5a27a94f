"""What was not believed, on record without being a way to fill the record.

Anybody who can publish can send something forged. So an incident is recorded at once, further ones
are counted, and the count goes on record at most once in ``EVERY_S``.
"""

from __future__ import annotations

import logging
from typing import Final

from kcm_schemas.audit import EventType
from kcm_schemas.codes import Code

from kcm_bus.clock import Clock
from kcm_bus.emitting import Emit

log = logging.getLogger(__name__)

EVERY_S: Final = 1.0
"""Seconds between two records of what one source was refused."""


class Refusals:
    """Records ``trust.refused``."""

    def __init__(self, source: str, emit: Emit, clock: Clock) -> None:
        self._source: Final = source
        self._emit: Final = emit
        self._clock: Final = clock
        self._last = float("-inf")
        self._count = 0

    def record(
        self, reason: Exception, *, actor: str | None = None, tenant: str | None = None
    ) -> None:
        """Count a refusal; its text is one of ours and carries nothing of the message.

        ``actor`` is somebody who is believed to have asked, and ``tenant`` whose data it was about.
        """
        self._count += 1
        now = self._clock.elapsed()
        if now - self._last < EVERY_S:
            return
        log.warning("%s: not believed (%d times): %s", self._source, self._count, reason)
        self._emit(
            EventType.TRUST_REFUSED,
            actor=actor,
            tenant=tenant,
            code=Code.FORBIDDEN,
            count=self._count,
            detail=f"{self._source}: {reason}",
        )
        self._last, self._count = now, 0
