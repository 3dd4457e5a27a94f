"""Batches: how many records go into one message, and what came of each.

A message carries at most ``RECORDS_MAX`` records, and neither the request nor its reply may exceed
``BODY_MAX``. A record costs its payload, its context, what encryption adds and what the encoding
adds; counting the larger of both directions once bounds both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from kcm_schemas import limits
from kcm_schemas.codes import RETRYABLE, Code
from kcm_schemas.results import Results

from kcm.errors import ServiceError, error_for

MESSAGE_RESERVE: Final = 4096
"""Bytes of a message kept for headers, field names and lengths of columns."""

RECORD_RESERVE: Final = 40
"""Bytes that one record's lengths and its code take at most, in either direction."""

RECORD_MAX: Final = limits.BODY_MAX - MESSAGE_RESERVE - RECORD_RESERVE - limits.APP_CONTEXT_MAX
"""Bytes of a record that always fits into one message, with any context."""

PAYLOAD_MAX: Final = RECORD_MAX - 384
"""Bytes of a plaintext that always fits: a record adds at most 285."""


class BatchResult(Results):
    """What came of each record, in the order given.

    ``values`` has all values, and raises ``BatchFailed`` unless every record is good. ``results``
    has each record's value or exception, for whoever can use some of them.
    """

    __slots__ = ("_details",)

    def __init__(
        self, values: list[bytes], codes: list[Code], details: Mapping[Code, str] | None = None
    ) -> None:
        """``details`` has, by code, what a service said in addition."""
        super().__init__(values, codes)
        self._details: Final = details or {}

    @property
    def results(self) -> list[bytes | ServiceError]:
        """Each record's value, or in its place the exception that says why there is none."""
        return [
            self._values[index] if self._code(index) is Code.OK else self._error(index)
            for index in range(len(self._values))
        ]

    def error(self, index: int) -> ServiceError | None:
        """Why a record is bad; none when it is good."""
        return None if self._code(index) is Code.OK else self._error(index)

    def _error(self, index: int) -> ServiceError:
        code = self._code(index)
        return error_for(code, self._details.get(code, ""))


class Outcome:
    """A result while it is being filled. Whatever was not answered stays ``unavailable``."""

    def __init__(self, size: int) -> None:
        self._values: list[bytes] = [b""] * size
        self._codes: list[Code] = [Code.UNAVAILABLE] * size
        self._details: dict[Code, str] = {}
        self._refused: dict[int, ServiceError] = {}
        """Records whose message was refused, not they themselves."""

    def put(self, indexes: Sequence[int], values: Sequence[bytes], codes: Sequence[Code]) -> None:
        """Take one message's answer; a bad record's value is dropped."""
        for index, value, code in zip(indexes, values, codes, strict=True):
            self._values[index] = value if code is Code.OK else b""
            self._codes[index] = code
            self._refused.pop(index, None)

    def fail(self, indexes: Sequence[int], error: ServiceError) -> None:
        """Give every record of a message the code with which the message was refused."""
        for index in indexes:
            self._values[index] = b""
            self._codes[index] = error.code
            self._refused[index] = error
        self._details[error.code] = error.detail

    def again(self, indexes: Sequence[int]) -> list[int]:
        """Those of ``indexes`` for which asking again may help."""
        return [index for index in indexes if self._codes[index] in RETRYABLE]

    def result(self) -> BatchResult:
        """What came of it; raises the refusal when the whole batch was refused.

        Of several refusals one that asking again does not change.
        """
        if self._refused and len(self._refused) == len(self._values):
            raise min(self._refused.values(), key=lambda error: error.retryable)
        return BatchResult(self._values, self._codes, dict(self._details))


def split(costs: Sequence[int], room: int) -> Iterator[list[int]]:
    """Indexes of records message by message, in order; what fits into no message is left out.

    ``costs`` and ``room`` are in bytes.
    """
    part: list[int] = []
    used = 0
    for index, cost in enumerate(costs):
        if cost > room:
            continue
        if part and (used + cost > room or len(part) == limits.RECORDS_MAX):
            yield part
            part, used = [], 0
        part.append(index)
        used += cost
    if part:
        yield part
