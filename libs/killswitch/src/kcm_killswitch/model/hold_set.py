"""A set of holds, and how two of them merge.

Per id, a hold is absent, held or lifted, in this order, and a merge takes the maximum by id. That
is a join of a lattice: commutative, associative and idempotent. So the order, the duplication and
the number of issuers of messages do not matter, and no party can outbid another one.

A hold's id commits to its content, so there is one content per id. The stored form keeps the
signatures of all its signers. If it kept one of them, a new roster that does not trust that signer
would end the hold. Of two lifts, the one with the smaller bytes represents both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from typing import Final

from kcm_schemas import limits
from kcm_schemas.control import Hold
from kcm_schemas.signed import united

from kcm_killswitch.model import id_set


@dataclass(frozen=True, slots=True)
class HoldState:
    """A verified hold as it was signed, and its lift as it was signed, if there is one."""

    hold: Hold
    raw: bytes
    lift: bytes | None = None

    @property
    def lifted(self) -> bool:
        """Whether the hold has ended."""
        return self.lift is not None

    @property
    def group(self) -> str:
        """The cause and origin, which a page of lifted holds has to name to end this one."""
        return f"{self.hold.cause}.{self.hold.origin}"

    @property
    def message(self) -> bytes:
        """The one signed statement that contains all of this: a lift embeds its hold."""
        return self.raw if self.lift is None else self.lift


def join(left: HoldState, right: HoldState) -> HoldState:
    """The later of two states of one hold."""
    if left.hold.id != right.hold.id:
        raise ValueError("only states of one hold are joined")
    lifts = [state.lift for state in (left, right) if state.lift is not None]
    return replace(
        left,
        raw=left.raw if left.raw == right.raw else united(left.raw, right.raw),
        lift=min(lifts, default=None),
    )


_SHARDS: Final = 256
"""Parts of a set, by the first byte of an id.

Ids are digests, so all parts have about the same size.
"""


@dataclass(frozen=True)
class _Shard:
    """The holds of one first byte by id, and the ids that pages end by cause and origin."""

    states: Mapping[bytes, HoldState]
    paged: Mapping[str, bytes] = field(default_factory=dict)

    @cached_property
    def digest(self) -> bytes:
        held: list[bytes] = []
        lifted: dict[str, list[bytes]] = {}
        for one in sorted(self.states):
            state = self.states[one]
            found = lifted.setdefault(state.group, []) if state.lifted else held
            found.append(one)
        total = sha256(_of(held))
        for origin in sorted({*lifted, *self.paged}):
            # A holder of a hold's lift and a holder of its id in a page know the same.
            every = id_set.union(b"".join(lifted.get(origin, ())), self.paged.get(origin, b""))
            total.update(sha256(origin.encode()).digest() + sha256(every).digest())
        return total.digest()

    def ends(self, state: HoldState) -> bool:
        """Whether a page says that a hold was lifted."""
        paged = self.paged.get(state.group)
        return paged is not None and id_set.has(paged, state.hold.id)

    def in_order(self, after: bytes) -> Iterator[HoldState]:
        """The states above ``after``, by id."""
        return (self.states[one] for one in sorted(self.states) if one > after)


def _of(them: list[bytes]) -> bytes:
    return sha256(b"".join(them)).digest()


_EMPTY: Final = _Shard({})


@dataclass(frozen=True)
class HoldSet:
    """Holds by id. Immutable: a merge makes a new set.

    A new hold goes into one of many shards; the other shards are shared with the previous set.

    A hold that a page ends takes 16 bytes here, and has no state. Its id commits to it, so when it
    arrives again it is recognised, and stays lifted. An id in a page is not enough: it ends no hold
    of another cause or origin.
    """

    _shards: tuple[_Shard, ...] = (_EMPTY,) * _SHARDS

    @classmethod
    def of(cls, states: Iterable[HoldState]) -> HoldSet:
        """The join of states in any order, with duplicates."""
        merged = cls()
        for state in states:
            merged = merged.add(state)
        return merged

    def merge(self, other: HoldSet) -> HoldSet:
        """The join of two sets."""
        return HoldSet.of([*self, *other])

    def add(self, state: HoldState) -> HoldSet:
        """The join with one state; the same object when nothing is new."""
        hold_id = state.hold.id
        shard = self._shards[_shard(hold_id)]
        known = shard.states.get(hold_id)
        joined = state if known is None else join(known, state)
        if joined == known or (known is None and shard.ends(state)):
            return self
        return self._with(hold_id[0], replace(shard, states={**shard.states, hold_id: joined}))

    def ends(self, state: HoldState) -> bool:
        """Whether a page says that a hold was lifted; then the hold has no state here."""
        return self._shards[_shard(state.hold.id)].ends(state)

    def paged(self, prefix: int, group: str) -> bytes:
        """The ids of one first byte, and one cause and origin, that pages end."""
        return self._shards[prefix].paged.get(group, b"")

    @property
    def paged_count(self) -> int:
        """The number of ids in pages."""
        paged = (found for shard in self._shards for found in shard.paged.values())
        return sum(map(len, paged)) // limits.ID_SIZE

    def turned(self, prefix: int, group: str, paged: bytes) -> tuple[HoldSet, list[HoldState]]:
        """The set in which pages end these ids of one first byte, and the states that it drops.

        ``group`` is as in ``HoldState``, ``paged`` as in ``kcm_killswitch.model.id_set``. Ids that
        pages ended before, and no longer do, are unknown until their holds arrive again.
        """
        shard = self._shards[prefix]
        others = {key: value for key, value in shard.paged.items() if key != group}
        turned = replace(shard, paged=others | ({group: paged} if paged else {}))
        gone = [state for state in shard.states.values() if turned.ends(state)]
        if gone:
            left = {key: one for key, one in shard.states.items() if not turned.ends(one)}
            turned = replace(turned, states=left)
        return self._with(prefix, turned), gone

    def judged(self, hold_id: bytes, state: HoldState | None) -> HoldSet:
        """The set with a hold as a new roster evaluates it; ``None``: without the hold.

        This is the only way in which a set gets smaller. Instances with the same roster do the
        same.
        """
        shard = self._shards[_shard(hold_id)]
        others = {key: one for key, one in shard.states.items() if key != hold_id}
        states = others if state is None else {**others, hold_id: state}
        return self._with(_shard(hold_id), replace(shard, states=states))

    def get(self, hold_id: bytes) -> HoldState | None:
        """The state of one hold."""
        return self._shards[_shard(hold_id)].states.get(hold_id)

    @cached_property
    def digest(self) -> bytes:
        """A digest of 32 bytes, which two sets share when each hold has the same state in both.

        It is over ids and states, and not over what was signed: two signatures of one lift make no
        difference. It is made of the digests of the shards in order, so that one more hold is
        digested without reading the others again.
        """
        return sha256(self.parts).digest()

    @cached_property
    def parts(self) -> bytes:
        """The digests of the shards in order: 256 of 32 bytes each."""
        return b"".join(shard.digest for shard in self._shards)

    def unlike(self, parts: bytes, prefix: int) -> Iterator[HoldState]:
        """The states of a first byte, by id, unless their digest is the one in ``parts``.

        ``parts`` is the ``parts`` of another set.
        """
        shard = self._shards[prefix]
        if shard.digest != parts[32 * prefix : 32 * (prefix + 1)]:
            yield from shard.in_order(b"")

    def in_order(self, after: bytes = b"") -> Iterator[HoldState]:
        """The states whose ids are above ``after``, by id: the same order everywhere.

        A caller that takes a few does not pay for the others.
        """
        for shard in self._shards[_shard(after) :]:
            yield from shard.in_order(after)

    def beginning(self, prefix: str) -> Iterator[HoldState]:
        """The states whose ids begin with the hexadecimal ``prefix``, by id.

        ``prefix`` is up to 32 digits of 0-9 and a-f.
        """
        digits = 2 * limits.ID_SIZE
        least = bytes.fromhex(prefix.ljust(digits, "0"))
        most = bytes.fromhex(prefix.ljust(digits, "f"))
        for shard in self._shards[_shard(least) : _shard(most) + 1]:
            for one in sorted(shard.states):
                if least <= one <= most:
                    yield shard.states[one]

    def _with(self, at: int, shard: _Shard) -> HoldSet:
        return HoldSet((*self._shards[:at], shard, *self._shards[at + 1 :]))

    def __iter__(self) -> Iterator[HoldState]:
        return (state for shard in self._shards for state in shard.states.values())

    def __len__(self) -> int:
        return sum(len(shard.states) for shard in self._shards)


def _shard(hold_id: bytes) -> int:
    return hold_id[0] if hold_id else 0
