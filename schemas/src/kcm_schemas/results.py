"""What came of the records of a batch, so that a bad one cannot be taken for an empty value.

A batch that was refused as a whole raises before there is a result. Of the others ``values`` has
every value or raises; whoever can use some of them reads ``results``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kcm_schemas.codes import Code, KcmError


class BatchFailed(KcmError):
    """Records of a batch failed. It has the code of the first one, which is its ``first``."""

    def __init__(self, failed: int, total: int, index: int, first: KcmError) -> None:
        """``index`` is the first bad record's, counted from 0."""
        super().__init__(
            first.code, f"{failed} of {total} records failed; the first is [{index}]: {first}"
        )
        self.failed: Final = failed
        self.total: Final = total
        self.index: Final = index
        self.first: Final = first

    def __reduce__(self) -> tuple[type[BatchFailed], tuple[int, int, int, KcmError]]:
        return type(self), (self.failed, self.total, self.index, self.first)


class Results:
    """What came of each record, in the order given. Its text shows no value."""

    __slots__ = ("_values", "codes")

    def __init__(self, values: list[bytes], codes: list[Code]) -> None:
        """``codes`` has one for each value, or is empty when every record is good."""
        self._values: Final = values
        self.codes: Final = codes

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._values)} records, {self.failed} failed)"

    @property
    def ok(self) -> bool:
        """Whether every record is good."""
        return not self.failed

    @property
    def failed(self) -> int:
        """How many records failed."""
        return len(self.codes) - self.codes.count(Code.OK)

    @property
    def values(self) -> list[bytes]:
        """Every value; raises ``BatchFailed`` unless all records are good."""
        failed = self.failed
        if not failed:
            return self._values
        index = next(at for at, code in enumerate(self.codes) if code is not Code.OK)
        first = self._error(index)
        raise BatchFailed(failed, len(self._values), index, first) from first

    @property
    def results(self) -> Sequence[bytes | KcmError]:
        """Each record's value, or in its place the exception that says why there is none."""
        return [
            value if self._code(index) is Code.OK else self._error(index)
            for index, value in enumerate(self._values)
        ]

    def one(self, index: int) -> bytes:
        """One value, or the exception of its code."""
        if self._code(index) is not Code.OK:
            raise self._error(index)
        return self._values[index]

    def error(self, index: int) -> KcmError | None:
        """Why a record is bad; none when it is good."""
        return None if self._code(index) is Code.OK else self._error(index)

    def columns(self) -> tuple[list[bytes], list[Code]]:
        """Values and codes as a reply carries them: a bad record's value is empty."""
        return self._values, self.codes

    def _code(self, index: int) -> Code:
        return self.codes[index] if self.codes else Code.OK

    def _error(self, index: int) -> KcmError:
        return KcmError(self._code(index))
