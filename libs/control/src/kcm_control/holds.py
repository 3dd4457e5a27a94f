"""A set of holds, and how two of them merge.

Per id a hold is absent, held or lifted, in this order, and merging takes the maximum by id. That is
a join of a lattice: commutative, associative and idempotent, so the order, the duplication and the
number of issuers of messages do not matter, and nobody can outbid anybody. A hold's id commits to
its content, so there is one content per id, and whoever signed it has a signature in the form that
is kept: if it were one of them, and a new roster did not believe that one, the hold would end. Of
two lifts the smaller bytes stand for both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from typing import Final

from kcm_schemas import limits
from kcm_schemas.control import Hold
from kcm_schemas.signed import united


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
    def origin(self) -> str:
        """What a lift of many has to name, beside the id, to end this hold."""
        return f"{self.hold.cause}.{self.hold.origin}"

    @property
    def message(self) -> bytes:
        """The one signed statement that says all of this: a lift embeds its hold."""
        return self.raw if self.lift is None else self.lift


def join(left: HoldRecord, right: HoldRecord) -> HoldRecord:
    """The later of two states of one hold."""
    if left.hold.id != right.hold.id:
        raise ValueError("only states of one hold are joined")
    lifts = [record.lift for record in (left, right) if record.lift is not None]
    return replace(
        left,
        raw=left.raw if left.raw == right.raw else united(left.raw, right.raw),
        issuer=min(left.issuer, right.issuer),
        lift=min(lifts, default=None),
    )


_SHARDS: Final = 256
"""Parts of a set, by the first byte of an id. Ids are digests, so each has as much as another."""


@dataclass(frozen=True)
class _Shard:
    """The holds of one first byte, by id."""

    records: Mapping[bytes, HoldRecord]

    @cached_property
    def digest(self) -> bytes:
        held: list[bytes] = []
        lifted: dict[str, list[bytes]] = {}
        for one in sorted(self.records):
            record = self.records[one]
            ids = lifted.setdefault(record.origin, []) if record.lifted else held
            ids.append(one)
        total = sha256(_of(held))
        for origin in sorted(lifted):
            total.update(sha256(origin.encode()).digest() + _of(lifted[origin]))
        return total.digest()

    def in_order(self, after: bytes) -> Iterator[HoldRecord]:
        """The records above ``after``, by id."""
        return (self.records[one] for one in sorted(self.records) if one > after)


def _of(ids: list[bytes]) -> bytes:
    return sha256(b"".join(ids)).digest()


_EMPTY: Final = _Shard({})


@dataclass(frozen=True)
class HoldSet:
    """Holds by id. Immutable: a merge makes a new set.

    Lifted holds stay for a month, and every purge adds one: what is new is put into one of many
    shards, and the others are shared with the set before.
    """

    _shards: tuple[_Shard, ...] = (_EMPTY,) * _SHARDS

    @classmethod
    def of(cls, records: Iterable[HoldRecord]) -> HoldSet:
        """The join of records in any order, with duplicates."""
        merged = cls()
        for record in records:
            merged = merged.add(record)
        return merged

    def merge(self, other: HoldSet) -> HoldSet:
        """The join of two sets."""
        return HoldSet.of([*self, *other])

    def add(self, record: HoldRecord) -> HoldSet:
        """The join with one record; the same object when nothing is new."""
        hold_id = record.hold.id
        known = self.get(hold_id)
        joined = record if known is None else join(known, record)
        if joined == known:
            return self
        at = _shard(hold_id)
        shards = list(self._shards)
        shards[at] = _Shard({**shards[at].records, hold_id: joined})
        return HoldSet(tuple(shards))

    def judged(self, hold_id: bytes, record: HoldRecord | None) -> HoldSet:
        """The set in which a hold stands as it is believed by a new roster; ``None``: not at all.

        The one way in which a set gets smaller. Whoever has the same roster does the same.
        """
        at = _shard(hold_id)
        shards = list(self._shards)
        others = {key: one for key, one in shards[at].records.items() if key != hold_id}
        shards[at] = _Shard(others if record is None else {**others, hold_id: record})
        return HoldSet(tuple(shards))

    def get(self, hold_id: bytes) -> HoldRecord | None:
        """The record of one hold."""
        return self._shards[_shard(hold_id)].records.get(hold_id)

    @cached_property
    def digest(self) -> bytes:
        """32 bytes that two sets share when each hold stands the same in both.

        Over ids and states, and not over what was signed: two signatures of one lift are no
        difference. It is made of the digests of the shards in order, so that one more hold is
        digested without reading the others again.
        """
        return sha256(self.parts).digest()

    @cached_property
    def parts(self) -> bytes:
        """The digests of the shards in order: 256 of 32 bytes each."""
        return b"".join(shard.digest for shard in self._shards)

    def unlike(self, parts: bytes, after: bytes = b"") -> Iterator[HoldRecord]:
        """The records above ``after``, by id, of every shard whose digest is another in ``parts``.

        ``parts`` is the ``parts`` of another set.
        """
        for at, shard in enumerate(self._shards):
            if shard.digest != parts[32 * at : 32 * (at + 1)]:
                yield from shard.in_order(after)

    def in_order(self, after: bytes = b"") -> Iterator[HoldRecord]:
        """The records whose ids are above ``after``, by id: the same everywhere.

        Whoever takes a few does not pay for the others.
        """
        for shard in self._shards[_shard(after) :]:
            yield from shard.in_order(after)

    def beginning(self, prefix: str) -> Iterator[HoldRecord]:
        """The records whose ids, in hexadecimal, begin so, by id.

        ``prefix`` is up to 32 digits of 0-9 and a-f.
        """
        digits = 2 * limits.ID_SIZE
        least = bytes.fromhex(prefix.ljust(digits, "0"))
        most = bytes.fromhex(prefix.ljust(digits, "f"))
        for shard in self._shards[_shard(least) : _shard(most) + 1]:
            for one in sorted(shard.records):
                if least <= one <= most:
                    yield shard.records[one]

    def __iter__(self) -> Iterator[HoldRecord]:
        return (record for shard in self._shards for record in shard.records.values())

    def __len__(self) -> int:
        return sum(len(shard.records) for shard in self._shards)


def _shard(hold_id: bytes) -> int:
    return hold_id[0] if hold_id else 0
