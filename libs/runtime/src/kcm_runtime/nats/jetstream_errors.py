"""What a refusal by JetStream means. Every comparison with one of its error codes stands here.

The codes are the server's (``server/errors.json``); a code is compared and never a text.
"""

from __future__ import annotations

from typing import Final

from nats.js import errors as js_errors

CONFLICTS: Final = frozenset({10071, 10164})
"""A compare-and-set that lost: 10071 says what the last sequence is. A replicated stream also has
10164, where another write to the subject is on its way to the other servers."""

NO_MESSAGE: Final = 10037
"""A subject that has no message, in a stream that exists."""

NO_STREAM: Final = 10059
"""A stream that does not exist."""

FULL: Final = frozenset({10002, 10023, 10028, 10047, 10077})
"""No room: resources of the account (10002), of the server (10023, 10028, 10047), or the stream
could not store, as at its own limit (10077). None of them passes by itself."""


def is_full(error: js_errors.APIError) -> bool:
    """Whether the broker has no room. Trying again helps once somebody made some."""
    return error.err_code in FULL


def is_conflict(error: js_errors.APIError) -> bool:
    """Whether somebody else wrote first, so that reading again helps. It is no outage."""
    return error.err_code in CONFLICTS


def is_no_message(error: js_errors.APIError) -> bool:
    """Whether the stream exists and has nothing under the subject."""
    return error.err_code == NO_MESSAGE


def is_no_stream(error: js_errors.APIError) -> bool:
    """Whether the stream does not exist. Only that is a missing stream: a consumer may be made."""
    return error.err_code == NO_STREAM
