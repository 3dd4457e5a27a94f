"""Rejected messages, recorded without a way to flood the audit stream.

Every client that can publish can send forged messages. So the first rejection is recorded at once,
and further ones of the same kind are counted (``kcm_runtime.audit.repeat_counter``): by requester
if it is verified, by the name that it claims if it is not, by tenant and by reason, so that a
harmless kind does not hide another one.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from kcm_schemas.audit import EventType
from kcm_schemas.codes import Code
from kcm_schemas.names import is_name
from kcm_trust.envelopes import Untrusted

from kcm_runtime.audit.port import Emit
from kcm_runtime.audit.repeat_counter import REST, Repeats, What
from kcm_runtime.logs import fields

log = logging.getLogger(__name__)

KINDS_MAX: Final = 16
"""Kinds of rejections of one requester, or of unverified ones, that one source tells apart within a
minute: with the rest, and a count after each, at most 34 events."""

LATEST_MAX: Final = 256
"""Rejections whose latest details are remembered for the log: more than there are fixed texts."""


class RejectionLog:
    """Records ``trust.refused``."""

    def __init__(self, source: str, emit: Emit) -> None:
        self._source: Final = source
        self._emit: Final = emit
        self._latest: Final[dict[str, str]] = {}
        """By the fixed text of a rejection, the latest one with its details."""
        self._repeats: Final = Repeats(self._tell, KINDS_MAX, f"{source}: {REST}")

    def record(
        self,
        reason: Exception,
        *,
        actor: str | None = None,
        tenant: str | None = None,
        claimed: str = "",
    ) -> None:
        """Count a rejection; ``actor`` is a verified requester, and ``tenant`` whose data it asked.

        ``claimed`` is a name in which an unverified requester asked: the event has it, as that.

        The event has the ``reason`` of an ``Untrusted``, which is one of a fixed set, and not its
        details: a sender could vary them. The log line has the details of the latest one.
        """
        what = What() if tenant is None else What(tenant=tenant)
        fixed = reason.reason if isinstance(reason, Untrusted) else str(reason)
        by = f" (claimed name: {claimed})" if is_name(claimed) else ""
        detail = f"{self._source}: {fixed}{by}"
        if detail in self._latest or len(self._latest) < LATEST_MAX:
            self._latest[detail] = f"{self._source}: {reason}{by}"
        self._repeats.record(EventType.TRUST_REFUSED, actor, what, Code.FORBIDDEN, detail)

    def close(self) -> None:
        """Record the rejections that are only counted so far."""
        self._repeats.close()

    def _tell(self, type: EventType, **event: Any) -> None:  # noqa: A002 - the name of the field
        detail = event["detail"]
        log.warning(
            "rejected (%d times): %s",
            event["count"],
            self._latest.get(detail, detail),
            extra=fields(count=event["count"], actor=event["actor"], tenant=event.get("tenant")),
        )
        self._emit(type, **event)
