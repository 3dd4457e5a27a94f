"""The meaning of JetStream's error codes. Every comparison with one of them is in this module.

The codes are the server's (``server/errors.json``); texts are never compared.
"""

from __future__ import annotations

from typing import Final

from nats.js import errors as js_errors

CONFLICTS: Final = frozenset({10071, 10164})
"""A compare-and-set that lost: 10071 reports the last sequence. A replicated stream also uses 10164
while another write to the subject is on its way to the other servers."""

NO_MESSAGE: Final = 10037
"""A subject without messages in an existing stream."""

NO_STREAM: Final = 10059
"""A stream that does not exist."""

FULL: Final = frozenset({10002, 10023, 10028, 10047, 10077})
"""No room: resources of the account (10002) or of the server (10023, 10028, 10047), or a stream
that could not store, for example at its own limit (10077). None of them passes by itself."""


class StreamMissing(Exception):
    """The stream or bucket does not exist. It never counts as an empty one."""

    def __init__(self, stream: str) -> None:
        super().__init__(
            f"the broker has no stream {stream}: provision the region, or restore its backup"
        )


def is_full(error: js_errors.APIError) -> bool:
    """Whether the broker has no room. A retry helps only after an operator made room."""
    return error.err_code in FULL


def is_conflict(error: js_errors.APIError) -> bool:
    """Whether another write came first, so that reading again helps. It is not an outage."""
    return error.err_code in CONFLICTS


def is_no_message(error: js_errors.APIError) -> bool:
    """Whether the stream exists and has no message for the subject."""
    return error.err_code == NO_MESSAGE


def is_no_stream(error: js_errors.APIError) -> bool:
    """Whether the stream does not exist. Only then it is missing: a consumer can be recreated."""
    return error.err_code == NO_STREAM
