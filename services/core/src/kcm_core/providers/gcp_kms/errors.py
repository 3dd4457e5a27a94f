"""The meaning of Google's status codes, in the one taxonomy.

*Failed precondition* is used for every state in which a version does not serve; only the message
tells which. Without one of the documented words in it, there is no known refusal. *Permission
denied* is a refusal if it names a permission on the key. It is also used for a project without
billing, for a token with too narrow a scope, by a perimeter and by a proxy. An error of the Core's
own credentials is no refusal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from google.api_core import exceptions as google
from google.auth import exceptions as auth

from kcm_core.providers import clock_skew
from kcm_core.providers.credentials import NO_CREDENTIALS
from kcm_core.providers.state import L1Error, L1State

_BUSY: Final = (L1State.UNREACHABLE, "Google cannot serve this at the moment")

CLASSES: Final[dict[type[Exception], tuple[L1State, str]]] = {
    google.NotFound: (L1State.DELETED, "there is no such key or version"),
    google.PermissionDenied: (
        L1State.FORBIDDEN,
        "the caller has no permission for this on the key",
    ),
    google.Unauthenticated: NO_CREDENTIALS,
    google.InvalidArgument: (L1State.UNREACHABLE, "Google does not understand the request"),
    google.DeadlineExceeded: (L1State.UNREACHABLE, "Google does not answer"),
    google.ServiceUnavailable: _BUSY,
    google.ResourceExhausted: _BUSY,
    google.InternalServerError: _BUSY,
    google.Aborted: _BUSY,
    google.Cancelled: _BUSY,
    google.RetryError: _BUSY,
    google.Unknown: _BUSY,
    auth.RefreshError: NO_CREDENTIALS,
    auth.DefaultCredentialsError: NO_CREDENTIALS,
    auth.TransportError: NO_CREDENTIALS,
}
"""By the SDK's class. All other classes are ``unreachable``."""

STATES: Final[dict[str, tuple[L1State, str]]] = {
    "DISABLED": (L1State.DISABLED, "the version is disabled"),
    "DESTROY_SCHEDULED": (L1State.PENDING_DELETION, "the version will be destroyed"),
    "DESTROYED": (L1State.DELETED, "the version was destroyed"),
}
"""By the word for a version's state in the message of a failed precondition."""

OF_THE_KEY: Final = "IAM_PERMISSION_DENIED"
"""Google's reason for a permission that was revoked or never granted."""

_PERMISSION: Final = re.compile(r"Permission 'cloudkms\.\w+\.\w+' denied on resource")
"""The key service's wording, for answers without a reason."""

_STATE: Final = re.compile(r"current state is:? ?'?([A-Z_]+)")


@contextmanager
def translated(*, opening: bool = False) -> Iterator[None]:
    """Turn the SDK's exceptions into ``L1Error``; Google's texts are dropped.

    ``opening`` says that an invalid argument can only be the blob.
    """
    try:
        yield
    except (google.GoogleAPIError, auth.GoogleAuthError) as error:
        raise of(error, opening=opening) from None


def of(error: Exception, *, opening: bool = False) -> L1Error:
    """Return the meaning of an exception of the SDK."""
    name = type(error).__name__
    if isinstance(error, google.FailedPrecondition):
        found = _STATE.search(str(error.message))
        state, detail = STATES.get(
            found[1] if found else "",
            (L1State.UNREACHABLE, "the version does not serve at present"),
        )
    elif isinstance(error, google.PermissionDenied) and not _of_the_key(error):
        state, detail = L1State.UNREACHABLE, "denied, but not by a permission on the key"
    elif opening and isinstance(error, google.InvalidArgument):
        state, detail = L1State.INVALID, "the blob does not authenticate"
    else:
        known = next((CLASSES[one] for one in type(error).__mro__ if one in CLASSES), None)
        state, detail = known or (L1State.UNREACHABLE, "Google did not perform the request")
        if state is L1State.UNREACHABLE:
            detail = clock_skew.told(detail, error, of_credentials=known == NO_CREDENTIALS)
    return L1Error(state, detail, cls=name)


def _of_the_key(error: google.PermissionDenied) -> bool:
    if error.reason:
        return bool(error.reason == OF_THE_KEY)
    return _PERMISSION.search(str(error.message)) is not None
