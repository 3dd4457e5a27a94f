"""Error codes: the reason of a failure, in a word on which a program can act.

A code is sent with safe text only: never with input, never with a library's message.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import Field

from kcm_schemas.text import printable


class Code(StrEnum):
    """Why a request, or one record of it, was not served."""

    OK = "ok"
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    UNKNOWN_TENANT = "unknown_tenant"
    UNKNOWN_SERVICE = "unknown_service"
    UNKNOWN_LINK = "unknown_link"
    UNKNOWN_APP = "unknown_app"
    UNKNOWN_HOLD = "unknown_hold"
    UNKNOWN_SESSION = "unknown_session"
    UNKNOWN_ASK = "unknown_ask"
    REPLAYED = "replayed"
    FORBIDDEN = "forbidden"
    WRONG_REGION = "wrong_region"
    TENANT_KILLED = "tenant_killed"
    TENANT_UNAVAILABLE = "tenant_unavailable"
    KEY_SHREDDED = "key_shredded"
    KEY_DESTROYED = "key_destroyed"
    TAMPERED = "tampered"
    CONFLICT = "conflict"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    BUSY = "busy"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


CodeField = Annotated[Code, Field(strict=False)]
"""A code as a field of a message: it arrives as text."""

RETRYABLE: Final = frozenset(
    {
        Code.BUSY,
        Code.UNAVAILABLE,
        Code.DEADLINE_EXCEEDED,
        Code.TENANT_UNAVAILABLE,
        Code.UNKNOWN_SESSION,
        Code.UNKNOWN_ASK,
        Code.REPLAYED,
    }
)
"""Codes for which the same request may succeed later without a decision by a person."""

TEXT: Final = {
    Code.OK: "done",
    Code.MALFORMED: "the message or record is not well formed",
    Code.TOO_LARGE: "more than the limit of one request; send it in parts",
    Code.UNKNOWN_TENANT: "no such tenant in this region",
    Code.UNKNOWN_SERVICE: "the tenant has no such service in this region",
    Code.UNKNOWN_LINK: "no such link in this region",
    Code.UNKNOWN_APP: "no such application in this region",
    Code.UNKNOWN_HOLD: "no such hold is known in this region",
    Code.UNKNOWN_SESSION: "the session is not known or has ended; make a new ticket",
    Code.UNKNOWN_ASK: "no Core that is reached knows the application's session; open a new one",
    Code.REPLAYED: "a request with this counter came before; this copy was not executed",
    Code.FORBIDDEN: "the caller may not do this, or the record is of another tenant or service",
    Code.WRONG_REGION: "the record belongs to another region",
    Code.TENANT_KILLED: "the tenant is killed: a hold is on it, on its root key or on its region",
    Code.TENANT_UNAVAILABLE: "the tenant's root key cannot be reached at the moment",
    Code.KEY_SHREDDED: "the data subject's key was shredded",
    Code.KEY_DESTROYED: "this version of the service key was destroyed",
    Code.TAMPERED: "the record or its context is not what was encrypted",
    Code.CONFLICT: "another request changed this at the same time, or it exists already",
    Code.DEADLINE_EXCEEDED: "the deadline had passed; nothing was done",
    Code.BUSY: "too many requests at once; try again soon",
    Code.UNAVAILABLE: "a part of the service cannot be reached; try again",
    Code.INTERNAL: "an unexpected fault; the operator's log has more",
}
"""Text for people; it reveals nothing, so every caller may see it."""


class KcmError(Exception):
    """A failure with its code. ``str()`` is safe to send to every caller and for a terminal."""

    def __init__(self, code: Code, detail: str = "") -> None:
        self.code: Final = code
        self.detail: Final = printable(detail) or TEXT[code]
        super().__init__(f"{code.value}: {self.detail}")

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        # Another process that catches it (a pool's, a task queue's) recreates it from these.
        return KcmError, (self.code, self.detail)

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later without a decision by a person."""
        return self.code in RETRYABLE
