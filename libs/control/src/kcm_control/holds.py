"""A set of holds, and how two of them merge.

Per id a hold is absent, held or lifted, in this order, and merging takes the maximum by id. That is
a join of a lattice: commutative, associative and idempotent, so the order, the duplication and the
number of issuers of messages do not matter, and nobody can outbid anybody. A hold's id commits to
its content, so there is one content per id; where two signed forms of the same state exist, the
smaller bytes stand for both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256

from kcm_schemas.control import Hold


@dataclass(frozen=True, slots=True)
class HoldRecord:
    """A verified hold as it was signed, and its lift as it was signed, if there is one."""

    hold: Hold
    issuer: str
    raw: bytes
    lift: bytes | None = None

    @property
    def lifted(self) -> bool:
        """Whether the hold has ended."""
        return self.lift is not None

    @property
    def message(self) -> bytes:
        """The one signed statement that says all of this: a lift embeds its hold."""
        return self.raw if self.lift is None else self.lift


def join(left: HoldRecord, right: HoldRecord) -> HoldRecord:
    """The later of two states of one hold."""
    if left.hold.id != right.hold.id:
        raise ValueError("only states of one hold are joined")
    first = min(left, right, key=lambda record: (record.raw, record.issuer))
    lifts = [record.lift for record in (left, right) if record.lift is not None]
    return replace(first, lift=min(lifts, default=None))


@dataclass(frozen=True)
class HoldSet:
    """Holds by id. Immutable: a merge makes a new set."""

    records: Mapping[bytes, HoldRecord] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[HoldRecord]) -> HoldSet:
        """The join of records in any order, with duplicates."""
        merged: dict[bytes, HoldRecord] = {}
        for record in records:
            known = merged.get(record.hold.id)
            merged[record.hold.id] = record if known is None else join(known, record)
        return cls(merged)

    def merge(self, other: HoldSet) -> HoldSet:
        """The join of two sets."""
        return HoldSet.of([*self, *other])

    def add(self, record: HoldRecord) -> HoldSet:
        """The join with one record; the same object when nothing is new."""
        known = self.records.get(record.hold.id)
        joined = record if known is None else join(known, record)
        if joined == known:
            return self
        return HoldSet({**self.records, record.hold.id: joined})

    def get(self, hold_id: bytes) -> HoldRecord | None:
        """The record of one hold."""
        return self.records.get(hold_id)

    @cached_property
    def digest(self) -> bytes:
        """32 bytes that two sets share when they say the same, in the same signed words."""
        total = sha256()
        for record in self.in_order():
            total.update(sha256(record.message).digest())
        return total.digest()

    def in_order(self, after: bytes = b"") -> list[HoldRecord]:
        """The records whose ids are above ``after``, by id: the same everywhere."""
        return [self.records[one] for one in sorted(self.records) if one > after]

    def __iter__(self) -> Iterator[HoldRecord]:
        return iter(self.records.values())

    def __len__(self) -> int:
        return len(self.records)
