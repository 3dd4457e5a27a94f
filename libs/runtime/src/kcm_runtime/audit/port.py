"""The port through which every component records its actions."""

from __future__ import annotations

from typing import Protocol

from kcm_schemas.audit import EventType
from kcm_schemas.codes import Code


class Emit(Protocol):
    """Records an audit event; never waits."""

    def __call__(  # noqa: D102, PLR0913 - one argument for each field of an event
        self,
        type: EventType,  # noqa: A002
        *,
        actor: str | None = None,
        tenant: str | None = None,
        service: str | None = None,
        target: str = "",
        hold: bytes | None = None,
        code: Code = Code.OK,
        count: int = 0,
        failed: int = 0,
        detail: str = "",
    ) -> None: ...


class AuditRoom(Protocol):
    """Whether the audit trail can take the event of one more data request."""

    @property
    def has_room(self) -> bool:
        """Whether a data request may begin; if not, refuse it with ``unavailable``."""
        ...

    @property
    def refusal(self) -> str:
        """Why a data request is refused while ``has_room`` is false, and the remedy."""
        ...
