"""The outcome of each record of a batch, so that a failed one cannot pass for an empty value.

A batch that was refused as a whole raises before there is a result. Otherwise ``values`` has every
value or raises; a caller that can use some of them reads ``results``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kcm_schemas.codes import Code, KcmError
from kcm_schemas.text import counted


class BatchFailed(KcmError):
    """Records of a batch failed. Its code is that of the first failed one, ``first``."""

    def __init__(self, failed: int, total: int, index: int, first: KcmError) -> None:
        """``index`` is that of the first failed record, counted from 0."""
        super().__init__(
            first.code,
            f"{failed} of {counted(total, 'record')} failed; the first is [{index}]: {first}",
        )
        self.failed: Final = failed
        self.total: Final = total
        self.index: Final = index
        self.first: Final = first

    def __reduce__(self) -> tuple[type[BatchFailed], tuple[int, int, int, KcmError]]:
        return type(self), (self.failed, self.total, self.index, self.first)


class Results:
    """The outcome of each record, in the given order. Its ``repr`` shows no value."""

    __slots__ = ("_values", "codes")

    def __init__(self, values: list[bytes], codes: list[Code]) -> None:
        """``codes`` has one code for each value, or is empty if every record is ok."""
        self._values: Final = values
        self.codes: Final = codes

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._values)} records, {self.failed} failed)"

    @property
    def ok(self) -> bool:
        """Whether every record is ok."""
        return not self.failed

    @property
    def failed(self) -> int:
        """How many records failed."""
        return len(self.codes) - self.codes.count(Code.OK)

    @property
    def values(self) -> list[bytes]:
        """Every value; raises ``BatchFailed`` unless all records are ok."""
        failed = self.failed
        if not failed:
            return self._values
        index = next(at for at, code in enumerate(self.codes) if code is not Code.OK)
        first = self._error(index)
        raise BatchFailed(failed, len(self._values), index, first) from first

    @property
    def results(self) -> Sequence[bytes | KcmError]:
        """Each record's value, or the exception that says why there is none."""
        return [
            value if self._code(index) is Code.OK else self._error(index)
            for index, value in enumerate(self._values)
        ]

    def one(self, index: int) -> bytes:
        """Return one value, or raise the exception of its code."""
        if self._code(index) is not Code.OK:
            raise self._error(index)
        return self._values[index]

    def error(self, index: int) -> KcmError | None:
        """Return why a record failed, or ``None`` if it is ok."""
        return None if self._code(index) is Code.OK else self._error(index)

    def columns(self) -> tuple[list[bytes], list[Code]]:
        """Return values and codes as a reply carries them: a failed record's value is empty."""
        return self._values, self.codes

    def _code(self, index: int) -> Code:
        return self.codes[index] if self.codes else Code.OK

    def _error(self, index: int) -> KcmError:
        return KcmError(self._code(index))
