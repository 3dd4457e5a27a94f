"""How far a region's audit stream may be trimmed, and why not further. Pure; time is an argument.

Theory of operation. Trimmed messages are gone from the broker, so they must be in journals: those
of ``quorum`` Auditors of the roster, each of which signed a head with exactly the digest that this
Core computed itself. An Auditor's statement has no value beyond that:

- A head that is lower than a head seen before, or differs from it at the same place, comes from an
  Auditor that was rolled back or lies. It is refused, and no trim relies on that Auditor until its
  head is above the one that was seen.
- A head with a digest other than this Core's is disputed. A head above the stream's end is too
  high. Neither counts.

Age is a matter of policy and not attested: messages younger than ``keep_ms`` stay for readers of
the stream. From ``NEARLY_FULL`` on, the shorter ``keep_full_ms`` applies. The quorum always
applies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

FILLING: Final = 0.70
"""Share of the stream's capacity from which operators are warned."""

NEARLY_FULL: Final = 0.90
"""Share from which operators are warned again, and the retention is shortened."""

HYSTERESIS: Final = 0.05
"""Share below a threshold at which its warning ends, so that one crossing warns once."""


@dataclass(frozen=True, slots=True)
class Claim:
    """An Auditor's signed statement: it has the stream up to ``through``, with this digest."""

    auditor: str
    through: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class KnownPosition:
    """A place of the stream that this Core computed itself; ``time_ms`` is the message's time."""

    through: int
    digest: bytes
    time_ms: int


@dataclass(frozen=True, slots=True)
class Policy:
    """``quorum`` 0 means every Auditor that is not retired; durations are in milliseconds."""

    quorum: int
    keep_ms: int
    keep_full_ms: int


@dataclass(frozen=True, slots=True)
class Extent:
    """The stream: emptied up to ``trimmed``, with messages up to ``last``.

    ``fill`` is the used share of its capacity.
    """

    trimmed: int
    last: int
    fill: float


class Doubt(Enum):
    """Why an Auditor's head does not count."""

    MISSING = "has published no head"
    LOWER = "published a lower head than before: its journal was rolled back"
    CHANGED = "published another digest than before for the same message"
    DIFFERS = "has another digest than this Core"
    TOO_HIGH = "claims more than the stream has"
    UNCOMPARED = "is at a message that this Core cannot compare yet"


GRAVE: Final = frozenset({Doubt.LOWER, Doubt.CHANGED, Doubt.DIFFERS, Doubt.TOO_HIGH})
"""Doubts that an honest Auditor with an honest broker never causes."""


@dataclass(frozen=True, slots=True)
class Decision:
    """``through`` is how far to trim; 0 means not now, and ``why`` then gives the reason.

    ``witnesses`` are the Auditors on which the trim relies; ``doubts`` are the others, by name.
    """

    through: int
    digest: bytes
    witnesses: tuple[str, ...]
    doubts: Mapping[str, Doubt]
    why: str


def judge(
    claims: Iterable[Claim],
    auditors: Sequence[str],
    floors: Mapping[str, Claim],
    places: Sequence[KnownPosition],
    *,
    trimmed: int,
    last: int,
) -> tuple[dict[str, Claim], dict[str, Doubt]]:
    """Which Auditors' heads count, and what is wrong with the others.

    ``places`` are what this Core computed, in order; ``trimmed`` is how far the stream was
    emptied; ``last`` is the stream's last message, read after the heads.
    """
    said = {claim.auditor: claim for claim in claims}
    known = {place.through: place.digest for place in places}
    good: dict[str, Claim] = {}
    doubts: dict[str, Doubt] = {}
    for auditor in auditors:
        claim, floor = said.get(auditor), floors.get(auditor)
        if claim is None:
            doubts[auditor] = Doubt.MISSING
        elif floor is not None and claim.through < floor.through:
            doubts[auditor] = Doubt.LOWER
        elif floor is not None and _contradicts(claim, floor):
            doubts[auditor] = Doubt.CHANGED
        elif claim.through > last:
            doubts[auditor] = Doubt.TOO_HIGH
        elif claim.through in known and known[claim.through] != claim.digest:
            doubts[auditor] = Doubt.DIFFERS
        elif claim.through in known or claim.through <= trimmed:
            good[auditor] = claim
        else:
            doubts[auditor] = Doubt.UNCOMPARED
    return good, doubts


def decide(
    claims: Iterable[Claim],
    auditors: Sequence[str],
    floors: Mapping[str, Claim],
    places: Sequence[KnownPosition],
    policy: Policy,
    extent: Extent,
    now_ms: int,
) -> Decision:
    """How far to trim now."""
    trimmed = extent.trimmed
    good, doubts = judge(claims, auditors, floors, places, trimmed=trimmed, last=extent.last)
    quorum = policy.quorum or len(auditors)

    def not_now(why: str) -> Decision:
        return Decision(0, b"", (), doubts, why)

    if not auditors:
        return not_now("the roster has no Auditor")
    if quorum > len(auditors):
        return not_now(f"{quorum} Auditors have to agree, and the roster has {len(auditors)}")
    if len(good) < quorum:
        return not_now(f"{quorum} Auditors have to agree, and {len(good)} do")
    reach = sorted((claim.through for claim in good.values()), reverse=True)[quorum - 1]
    keep_ms = policy.keep_ms
    if extent.fill >= NEARLY_FULL:
        keep_ms = min(keep_ms, policy.keep_full_ms)
    cut: KnownPosition | None = None
    for place in places:
        if place.through > reach or place.time_ms > now_ms - keep_ms:
            break
        cut = place
    if reach <= trimmed:
        return not_now("the Auditors have nothing beyond the last trim")
    if cut is None or cut.through <= trimmed:
        return not_now("everything is younger than what is kept")
    witnesses = tuple(sorted(name for name, claim in good.items() if claim.through >= cut.through))
    return Decision(cut.through, cut.digest, witnesses, doubts, "")


def raised(floors: Mapping[str, Claim], good: Mapping[str, Claim]) -> dict[str, Claim] | None:
    """The floors, raised to accepted heads; ``None`` if that changes nothing."""
    higher = {
        name: claim
        for name, claim in good.items()
        if name not in floors or claim.through > floors[name].through
    }
    return {**floors, **higher} if higher else None


class Level(Enum):
    """The fill level of the stream."""

    ROOMY = 0
    FILLING = 1
    NEARLY_FULL = 2


def level(before: Level, fill: float) -> Level:
    """The level at ``fill`` (a share), after ``before``: down only well below a threshold."""
    down = {Level.FILLING: FILLING, Level.NEARLY_FULL: NEARLY_FULL}
    found = Level.ROOMY
    for candidate, threshold in down.items():
        held = before.value >= candidate.value
        if fill >= threshold - (HYSTERESIS if held else 0.0):
            found = candidate
    return found


def _contradicts(claim: Claim, floor: Claim) -> bool:
    return claim.through == floor.through and claim.digest != floor.digest
