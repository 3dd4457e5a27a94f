"""What was not believed, on record without being a way to fill the record.

Anybody who can publish can send something forged. So an incident is recorded at once, and further
ones of the same kind are counted (``kcm_runtime.audit.repeat_counter``): by who asked where that is
certain, by tenant and by reason, so that a harmless one hides no other.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from kcm_schemas.audit import EventType
from kcm_schemas.codes import Code

from kcm_runtime.audit.port import Emit
from kcm_runtime.audit.repeat_counter import REST, Repeats, What

log = logging.getLogger(__name__)

KINDS_MAX: Final = 16
"""Kinds of refusals of one actor, or of nobody, that one source tells apart within a minute: with
the rest, and a number after each, 34 events."""


class RejectionLog:
    """Records ``trust.refused``."""

    def __init__(self, source: str, emit: Emit) -> None:
        self._source: Final = source
        self._emit: Final = emit
        self._repeats: Final = Repeats(self._tell, KINDS_MAX, f"{source}: {REST}")

    def record(
        self, reason: Exception, *, actor: str | None = None, tenant: str | None = None
    ) -> None:
        """Count a refusal; its text is one of ours and carries nothing of the message.

        ``actor`` is somebody who is believed to have asked, and ``tenant`` whose data it was about.
        """
        what = What() if tenant is None else What(tenant=tenant)
        detail = f"{self._source}: {reason}"
        self._repeats.record(EventType.TRUST_REFUSED, actor, what, Code.FORBIDDEN, detail)

    def close(self) -> None:
        """Record what is only counted so far."""
        self._repeats.close()

    def _tell(self, type: EventType, **fields: Any) -> None:  # noqa: A002 - the name of the field
        log.warning("not believed (%d times): %s", fields["count"], fields["detail"])
        self._emit(type, **fields)
