"""What Google's status codes mean, in the one taxonomy.

*Failed precondition* stands for every state in which a version does not serve; which one it is
stands in the message alone. Where none of the documented words stands there, nobody is known to
have refused. A project's trouble (billing, an API that is switched off) is not the key owner's word
either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from google.api_core import exceptions as google
from google.auth import exceptions as auth

from kcm_core.l1.state import L1Error, L1State

_BUSY: Final = (L1State.UNREACHABLE, "Google cannot serve this at the moment")
_CREDENTIALS: Final = (L1State.UNREACHABLE, "the credentials are missing, expired or wrong")

CLASSES: Final[dict[type[Exception], tuple[L1State, str]]] = {
    google.NotFound: (L1State.DELETED, "there is no such key or version"),
    google.PermissionDenied: (
        L1State.FORBIDDEN,
        "the caller has no permission for this on the key",
    ),
    google.Unauthenticated: _CREDENTIALS,
    google.InvalidArgument: (L1State.UNREACHABLE, "Google does not understand the request"),
    google.DeadlineExceeded: (L1State.UNREACHABLE, "Google does not answer"),
    google.ServiceUnavailable: _BUSY,
    google.ResourceExhausted: _BUSY,
    google.InternalServerError: _BUSY,
    google.Aborted: _BUSY,
    google.Cancelled: _BUSY,
    google.RetryError: _BUSY,
    google.Unknown: _BUSY,
    auth.RefreshError: _CREDENTIALS,
    auth.DefaultCredentialsError: _CREDENTIALS,
    auth.TransportError: _CREDENTIALS,
}
"""By the SDK's class. One that is not here is ``unreachable``."""

STATES: Final[dict[str, tuple[L1State, str]]] = {
    "DISABLED": (L1State.DISABLED, "the version is disabled"),
    "DESTROY_SCHEDULED": (L1State.PENDING_DELETION, "the version will be destroyed"),
    "DESTROYED": (L1State.DELETED, "the version was destroyed"),
}
"""By the word for a version's state in the message of a failed precondition."""

PROJECT: Final = frozenset(
    {"SERVICE_DISABLED", "BILLING_DISABLED", "CONSUMER_SUSPENDED", "CONSUMER_INVALID"}
)
"""Reasons of a denied permission that are the project's, and say nothing about the key."""

_STATE: Final = re.compile(r"current state is:? ?'?([A-Z_]+)")


@contextmanager
def translated(*, opening: bool = False) -> Iterator[None]:
    """Turn the SDK's exceptions into ours; Google's own texts are dropped.

    ``opening`` says that an argument that is not valid is the blob.
    """
    try:
        yield
    except (google.GoogleAPIError, auth.GoogleAuthError) as error:
        raise of(error, opening=opening) from None


def of(error: Exception, *, opening: bool = False) -> L1Error:
    """What one of the SDK's exceptions means."""
    name = type(error).__name__
    if isinstance(error, google.FailedPrecondition):
        found = _STATE.search(str(error.message))
        state, detail = STATES.get(
            found[1] if found else "",
            (L1State.UNREACHABLE, "the version does not serve at present"),
        )
    elif isinstance(error, google.PermissionDenied) and error.reason in PROJECT:
        state, detail = L1State.UNREACHABLE, "the project is switched off"
    elif opening and isinstance(error, google.InvalidArgument):
        state, detail = L1State.INVALID, "the blob does not authenticate"
    else:
        known = next((CLASSES[one] for one in type(error).__mro__ if one in CLASSES), None)
        state, detail = known or (L1State.UNREACHABLE, "Google did not do what was asked")
    return L1Error(state, detail, cls=name)
