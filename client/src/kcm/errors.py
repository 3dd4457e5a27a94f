"""One exception class per code, so that a program catches what it can act on.

``retryable`` says whether the same request may succeed later without anybody's decision. The text
is safe to show; what a service added to it is free text, so a terminal escapes it first.
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
    """The message or the record is not well formed."""

    CODE = Code.MALFORMED


class TooLarge(ServiceError):
    """A record does not fit into one request."""

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


class UnknownHold(ServiceError):
    """The region knows no such hold."""

    CODE = Code.UNKNOWN_HOLD


class UnknownSession(ServiceError):
    """The session between two services ended; a retry makes a new one."""

    CODE = Code.UNKNOWN_SESSION


class Forbidden(ServiceError):
    """The caller may not do this, or the record belongs to somebody else."""

    CODE = Code.FORBIDDEN


class WrongRegion(ServiceError):
    """The record belongs to another region."""

    CODE = Code.WRONG_REGION


class TenantKilled(ServiceError):
    """A hold is on the tenant, on its root key or on its region."""

    CODE = Code.TENANT_KILLED


class TenantSealed(ServiceError):
    """The tenant's root key cannot be reached at the moment."""

    CODE = Code.TENANT_SEALED


class KeyShredded(ServiceError):
    """The data subject's key was shredded; nobody can read the record any more."""

    CODE = Code.KEY_SHREDDED


class KeyDestroyed(ServiceError):
    """The version of the service key that the record needs was destroyed."""

    CODE = Code.KEY_DESTROYED


class Tampered(ServiceError):
    """The record, or the context given with it, is not what was encrypted."""

    CODE = Code.TAMPERED


class Conflict(ServiceError):
    """Another record has this name, or somebody else changed it at the same moment."""

    CODE = Code.CONFLICT


class DeadlineExceeded(ServiceError):
    """No answer in time. A later one is discarded."""

    CODE = Code.DEADLINE_EXCEEDED


class Busy(ServiceError):
    """Too many requests at once."""

    CODE = Code.BUSY


class Unavailable(ServiceError):
    """A part of the service, or the broker, cannot be reached."""

    CODE = Code.UNAVAILABLE


class Internal(ServiceError):
    """An unexpected fault, or an answer that is not one of this protocol."""

    CODE = Code.INTERNAL


class Discarded(DeadlineExceeded):
    """An answer came, but later than it may be accepted."""


class Unreached(Unavailable):
    """The request reached nobody: the broker is away, or every instance that serves it."""


class UntrustedReply(Tampered):
    """An answer that is not signed by whom it has to be, or answers something else."""


BY_CODE: Final[dict[Code, type[ServiceError]]] = {
    cls.CODE: cls
    for cls in (
        Malformed,
        TooLarge,
        UnknownTenant,
        UnknownService,
        UnknownLink,
        UnknownHold,
        UnknownSession,
        Forbidden,
        WrongRegion,
        TenantKilled,
        TenantSealed,
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
    """The exception of a code. ``ok`` is no refusal: who refuses with it is not understood."""
    return BY_CODE.get(code, Internal)(detail)


def typed(error: KcmError) -> ServiceError:
    """The same error as an instance of its code's class."""
    return error if isinstance(error, ServiceError) else error_for(error.code, error.detail)
