"""Where the region's stream has the states of holds, as far as this incarnation has seen it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kcm_runtime.clock import Clock

from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.log_position import NOWHERE, LogPosition


@dataclass(frozen=True, slots=True)
class Place:
    """Where the stream has a state, since when this is known, and if it was elsewhere before."""

    message: bytes
    sequence: int
    noted: float
    moved: bool


class HoldPositions:
    """The position of each hold, and the last state of it that was seen in the stream."""

    def __init__(self, clock: Clock) -> None:
        self._clock: Final = clock
        self._places: Final[dict[bytes, Place]] = {}
        self._seen: Final[dict[bytes, HoldState]] = {}

    def __len__(self) -> int:
        """Return the number of holds that have a position."""
        return len(self._places)

    def placed(self, state: HoldState) -> Place | None:
        """Where the stream has exactly this state; ``None`` if it has not."""
        place = self._places.get(state.hold.id)
        return place if place is not None and place.message == state.message else None

    def sequence(self, hold_id: bytes) -> int:
        """The sequence at which the stream has any state of a hold; 0 if it has none."""
        place = self._places.get(hold_id)
        return 0 if place is None else place.sequence

    def highest(self) -> LogPosition:
        """The highest sequence at which a hold is stored, and its id."""
        if not self._places:
            return NOWHERE
        hold_id, place = max(self._places.items(), key=lambda one: one[1].sequence)
        return LogPosition(place.sequence, hold_id)

    def note(self, state: HoldState, sequence: int) -> None:
        """Record that the stream was seen to have this state.

        The latest such sequence counts: if another entry was stored there in between, an
        incarnation that began after the earlier sequence may not have seen the hold.
        """
        hold_id, known = state.hold.id, self._places.get(state.hold.id)
        if known is None or (known.message, known.sequence) != (state.message, sequence):
            moved = self.was_seen(hold_id)
            self._places[hold_id] = Place(state.message, sequence, self._clock.elapsed(), moved)
        self._seen[hold_id] = state

    def stored(self, state: HoldState) -> None:
        """Record that a write of this state was acknowledged; its position is not known."""
        self._seen[state.hold.id] = state

    def was_seen(self, hold_id: bytes) -> bool:
        """Whether any state of a hold was seen in the stream since the hold last ended."""
        return hold_id in self._seen

    def last_seen(self, hold_id: bytes) -> HoldState | None:
        """The last state of a hold that was seen in the stream, or written to it."""
        return self._seen.get(hold_id)

    def remove(self, hold_id: bytes) -> int:
        """The stream has something else there. Returns the former sequence; 0 if unknown."""
        sequence = self.sequence(hold_id)
        self._places.pop(hold_id, None)
        return sequence

    def ended(self, hold_id: bytes) -> int:
        """The same for a hold that a page ends: its next state is a new one."""
        self._seen.pop(hold_id, None)
        return self.remove(hold_id)
