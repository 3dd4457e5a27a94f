"""One exception class per error code, so that a program catches those that it can handle.

``retryable`` is true if the same request may succeed later without an operator's action. The text
contains no secrets. It may contain free text of a component, so escape it before a terminal.
"""

from __future__ import annotations

from typing import ClassVar, Final

from kcm_schemas.codes import Code, KcmError


class ServiceError(KcmError):
    """A refusal with the code of its class."""

    CODE: ClassVar[Code] = Code.INTERNAL

    def __init__(self, detail: str = "") -> None:
        super().__init__(self.CODE, detail)

    def __reduce__(self) -> tuple[type[ServiceError], tuple[str]]:
        return type(self), (self.detail,)


class Malformed(ServiceError):
    """The message or record is malformed."""

    CODE = Code.MALFORMED


class TooLarge(ServiceError):
    """A record does not fit into one message."""

    CODE = Code.TOO_LARGE


class UnknownTenant(ServiceError):
    """The region has no such tenant."""

    CODE = Code.UNKNOWN_TENANT


class UnknownService(ServiceError):
    """The tenant has no such service in the region."""

    CODE = Code.UNKNOWN_SERVICE


class UnknownLink(ServiceError):
    """The region has no such link to a root key."""

    CODE = Code.UNKNOWN_LINK


class UnknownApp(ServiceError):
    """The region has no such application."""

    CODE = Code.UNKNOWN_APP


class UnknownHold(ServiceError):
    """The region knows no such hold."""

    CODE = Code.UNKNOWN_HOLD


class UnknownSession(ServiceError):
    """The session between a Gateway and a Core ended. A retry creates a new one."""

    CODE = Code.UNKNOWN_SESSION


class UnknownAsk(ServiceError):
    """No Core that a Gateway reaches knows the application's session. A retry opens a new one."""

    CODE = Code.UNKNOWN_ASK


class Replayed(ServiceError):
    """The same request came before. A retry makes a new one."""

    CODE = Code.REPLAYED


class Forbidden(ServiceError):
    """The caller has no permission, or the record belongs to another tenant or service."""

    CODE = Code.FORBIDDEN


class WrongRegion(ServiceError):
    """The record belongs to another region."""

    CODE = Code.WRONG_REGION


class TenantKilled(ServiceError):
    """A hold on the tenant, its root key or its region is in force."""

    CODE = Code.TENANT_KILLED


class TenantUnavailable(ServiceError):
    """The tenant's root key cannot be reached now."""

    CODE = Code.TENANT_UNAVAILABLE


class KeyShredded(ServiceError):
    """The data subject's key was destroyed. The record can no longer be decrypted."""

    CODE = Code.KEY_SHREDDED


class KeyDestroyed(ServiceError):
    """The version of the service key for this record was destroyed."""

    CODE = Code.KEY_DESTROYED


class Tampered(ServiceError):
    """The record or its context differs from what was encrypted."""

    CODE = Code.TAMPERED


class Conflict(ServiceError):
    """Another entry has this name, or another operator changed it at the same time."""

    CODE = Code.CONFLICT


class DeadlineExceeded(ServiceError):
    """No reply came in time. A later one is discarded."""

    CODE = Code.DEADLINE_EXCEEDED


class Busy(ServiceError):
    """Too many requests at once."""

    CODE = Code.BUSY


class Unavailable(ServiceError):
    """A component or the broker cannot be reached."""

    CODE = Code.UNAVAILABLE


class Internal(ServiceError):
    """An unexpected fault, or a reply that is not a message of this protocol."""

    CODE = Code.INTERNAL


class Discarded(DeadlineExceeded):
    """A reply came after the deadline or after its answer lease had ended."""


class Unreached(Unavailable):
    """The request reached no component: the broker or all instances are down."""


class NotAccepted(Unavailable):
    """Gateways refuse, without a seal, to open a session for this application.

    The text has what they claim. Any client of the broker can send such a refusal.
    """


class UntrustedReply(Tampered):
    """A reply whose signature or subject does not match the request."""


BY_CODE: Final[dict[Code, type[ServiceError]]] = {
    cls.CODE: cls
    for cls in (
        Malformed,
        TooLarge,
        UnknownTenant,
        UnknownService,
        UnknownLink,
        UnknownApp,
        UnknownHold,
        UnknownSession,
        UnknownAsk,
        Replayed,
        Forbidden,
        WrongRegion,
        TenantKilled,
        TenantUnavailable,
        KeyShredded,
        KeyDestroyed,
        Tampered,
        Conflict,
        DeadlineExceeded,
        Busy,
        Unavailable,
        Internal,
    )
}


def error_for(code: Code, detail: str = "") -> ServiceError:
    """Return the exception of a code. A refusal with code ``ok`` is not valid: ``Internal``."""
    return BY_CODE.get(code, Internal)(detail)


def typed(error: KcmError) -> ServiceError:
    """Return the same error as an instance of its code's class."""
    return error if isinstance(error, ServiceError) else error_for(error.code, error.detail)
