"""Batches: the division of records into messages, and the result of each record.

A message carries at most ``RECORDS_MAX`` records, and neither the request nor its reply may exceed
``BODY_MAX``. The cost of a record is its payload, its context, and the overhead of encryption and
encoding. It is computed for the larger direction, so it bounds both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from kcm_schemas import limits
from kcm_schemas.codes import RETRYABLE, Code
from kcm_schemas.results import Results

from kcm.errors import ServiceError, error_for

MESSAGE_RESERVE: Final = 4096
"""Bytes of a message reserved for headers, field names and lengths of columns."""

RECORD_RESERVE: Final = 40
"""Maximum bytes of one record's lengths and code, in either direction."""

RECORD_MAX: Final = limits.BODY_MAX - MESSAGE_RESERVE - RECORD_RESERVE - limits.APP_CONTEXT_MAX
"""Bytes of a record that always fits into one message, with any context."""

PAYLOAD_MAX: Final = RECORD_MAX - 384
"""Bytes of a plaintext that always fits: a record adds at most 285."""


class BatchResult(Results):
    """The result of each record, in the order of the arguments.

    ``values`` has all values, and raises ``BatchFailed`` if a record failed. ``results`` has the
    value or the exception of each record, for a program that can use some of them.
    """

    __slots__ = ("_details",)

    def __init__(
        self, values: list[bytes], codes: list[Code], details: Mapping[Code, str] | None = None
    ) -> None:
        """``details`` has the text of a Gateway's refusal by its code."""
        super().__init__(values, codes)
        self._details: Final = details or {}

    @property
    def results(self) -> list[bytes | ServiceError]:
        """The value of each record, or the exception with which it failed."""
        return [
            self._values[index] if self._code(index) is Code.OK else self._error(index)
            for index in range(len(self._values))
        ]

    def error(self, index: int) -> ServiceError | None:
        """Return the exception of a record, or ``None`` if it succeeded."""
        return None if self._code(index) is Code.OK else self._error(index)

    def _error(self, index: int) -> ServiceError:
        code = self._code(index)
        return error_for(code, self._details.get(code, ""))


class Outcome:
    """A result that is filled message by message. A record without a reply is ``unavailable``."""

    def __init__(self, size: int) -> None:
        self._values: list[bytes] = [b""] * size
        self._codes: list[Code] = [Code.UNAVAILABLE] * size
        self._details: dict[Code, str] = {}
        self._refused: dict[int, ServiceError] = {}
        """Records whose whole message was refused."""

    def put(self, indexes: Sequence[int], values: Sequence[bytes], codes: Sequence[Code]) -> None:
        """Store the reply to one message; the value of a failed record is dropped."""
        for index, value, code in zip(indexes, values, codes, strict=True):
            self._values[index] = value if code is Code.OK else b""
            self._codes[index] = code
            self._refused.pop(index, None)

    def fail(self, indexes: Sequence[int], error: ServiceError) -> None:
        """Store the refusal of a whole message for each of its records."""
        for index in indexes:
            self._values[index] = b""
            self._codes[index] = error.code
            self._refused[index] = error
        self._details[error.code] = error.detail

    def again(self, indexes: Sequence[int]) -> list[int]:
        """Return those of ``indexes`` for which a retry may help."""
        return [index for index in indexes if self._codes[index] in RETRYABLE]

    def result(self) -> BatchResult:
        """Return the result; raise the refusal if the whole batch was refused.

        Of several refusals, raise one that a retry does not change.
        """
        if self._refused and len(self._refused) == len(self._values):
            raise min(self._refused.values(), key=lambda error: error.retryable)
        return BatchResult(self._values, self._codes, dict(self._details))


def split(costs: Sequence[int], room: int) -> Iterator[list[int]]:
    """Yield the indexes of each message's records, in order. Omit records that are too large.

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
