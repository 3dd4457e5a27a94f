"""A region's control stream: the last message of every subject, with all that can befall it.

Its truth is what a majority of its replicas has. Clients on side 1 of a split region see the
minority: their puts are never acknowledged (they may be stored when the split heals), ``last`` is
answered from what the minority had, and their consumers stay alive and silent.

A **rollback** takes the last messages back, and sequences are used a second time; a **recreation**
makes an empty stream with another creation time. Both end every consumer.

A put is **proposed** to the replicas and stored a little later. Until then whoever compares and
sets the same subject conflicts with something that nobody can read, and that may be dropped yet. A
put that arrives twice conflicts with itself: it is stored, and its answer says that it is not.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from kcm_runtime.nats.ports import Entry, StreamLeader
from kcm_schemas import subjects
from nats.js.errors import APIError

from tests.simulation.following import SimFollowing
from tests.simulation.loop import SimLoop
from tests.simulation.messages import SimConnection
from tests.simulation.nodes import Node

Put = tuple[str, bytes, int | None, float]
"""Subject, body, expected sequence, and seconds to live (0: for ever)."""

Acknowledge = Callable[[int | APIError], None]
"""Called with the sequence, or with what the server says instead."""

WRONG_SEQUENCE: Final = 10071
"""A conflict with what is stored."""

IN_FLIGHT: Final = 10164
"""A conflict with what is on its way to the replicas."""


@dataclass(slots=True)
class Store:
    """How storing goes. Probabilities for each put, and seconds."""

    delay_s: float = 0.001
    lost: float = 0.0
    unheard: float = 0.0
    """It is stored, and the acknowledgement is lost."""
    late: float = 0.0
    late_s: float = 8.0
    """It is stored long after it was sent; exponential, with this mean."""
    again: float = 0.0
    """It arrives twice, and the first answer is lost."""
    pending_s: float = 0.0
    """Seconds between the proposal and the majority, at most."""
    dropped: float = 0.0
    """A proposal is never stored, and nobody says so."""
    gap: float = 0.0
    """A delivery to a consumer is lost, which is noticed at the next one or its heartbeat."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A message in the stream; ``expires`` in true seconds."""

    entry: Entry
    expires: float


OnStored = Callable[[str, Entry], None]
"""Region and entry, at the moment at which a majority has it."""


class ControlStream:
    """One region's stream."""

    def __init__(self, loop: SimLoop, region: str, store: Store | None = None) -> None:
        self.loop: Final = loop
        self.region: Final = region
        self.random: Final = random.Random(loop.random.random())
        self.store: Final = store or Store()
        self.counts: Final[Counter[str]] = Counter()
        self.created = 1
        self.sequence = 0
        self.down = False
        """No broker of the region answers."""
        self.ack_s = 0.0
        """Seconds by which every acknowledgement is late."""
        self.hold_s = 0.0
        """Seconds by which holds are stored late."""
        self.roster_s = 0.0
        """Seconds by which rosters are."""
        self.on_stored: list[OnStored] = []
        self.on_put: Callable[[Put], bool] = lambda _: True
        """Looks at every put that arrives; ``False`` keeps it from being stored."""
        self.on_lost: list[Callable[[str, int], None]] = []
        """Told the region and the sequence behind which everything was lost."""
        self.followings: list[SimFollowing] = []
        self._history: list[Stored] = []
        self._last: dict[str, Stored] = {}
        self._minority: dict[str, Stored] | None = None
        self._cut_at = 0
        self._limbo: list[Callable[[], None]] = []
        self._pending: Counter[str] = Counter()
        """Proposals under way, by subject."""

    @property
    def split(self) -> bool:
        """Whether side 1 is cut off from the majority."""
        return self._minority is not None

    def entries(self, behind: int = 0) -> list[Entry]:
        """What the stream has above a sequence, in its order."""
        kept = [one.entry for one in self._last.values() if one.entry.sequence > behind]
        return sorted(kept, key=lambda entry: entry.sequence)

    @property
    def past(self) -> list[Entry]:
        """Everything that was ever stored, and not lost, in its order."""
        return [one.entry for one in self._history]

    def reachable(self, connection: SimConnection) -> bool:
        """Whether a connection's broker answers at all."""
        return connection.connected and connection.leg.state == "open" and not self.down

    def information(self, connection: SimConnection) -> tuple[int, int]:
        """When the stream was created and its last sequence, as a connection's broker has them."""
        return self.created, self._cut_at if self.in_minority(connection) else self.sequence

    def in_minority(self, connection: SimConnection) -> bool:
        """Whether it is one of those whom the majority does not hear."""
        return self._minority is not None and connection.side == 1

    def delay(self) -> float:
        """Seconds of one way between a client and the stream."""
        return self.store.delay_s * (0.3 + 1.4 * self.random.random())

    def accept(self, connection: SimConnection, put: Put, acknowledge: Acknowledge) -> None:
        """A put arrived at the broker of a connection."""
        if not self.on_put(put):
            self.counts["put lost"] += 1
            return
        if self.down or connection.leg.state == "cut":
            self.counts["put lost"] += 1
            return
        if connection.leg.state == "stalled":
            connection.leg.held.append(partial(self.accept, connection, put, acknowledge))
            return
        if self.in_minority(connection):
            self.counts["put in the minority"] += 1
            if self.random.random() < 0.3:  # the broker keeps it, and proposes it after the split
                self._limbo.append(lambda: self._propose(put, lambda _: None))
            return
        noun = subjects.control_noun(put[0]) if self.hold_s or self.roster_s else ""
        late = {"hold": self.hold_s, "roster": self.roster_s}.get(noun, 0.0)
        if late:
            self.loop.after(late, self._propose, put, acknowledge)
        else:
            self._propose(put, acknowledge)

    def look(self, connection: SimConnection, subject: str) -> Entry | None:
        """The last message as the broker of a connection has it."""
        here = self._minority if self.in_minority(connection) else self._last
        found = (here or {}).get(subject)
        return None if found is None else found.entry

    def leading(self, connection: SimConnection) -> StreamLeader:
        """Who answers a connection's broker for the stream, and how many messages it counts."""
        side = "minority" if self.in_minority(connection) else "majority"
        here = self._minority if self.in_minority(connection) else self._last
        return StreamLeader(side, len(here or {}))

    def append(self, subject: str, body: bytes, ttl_s: float = 0.0) -> int:
        """Store a message; returns its sequence."""
        self.sequence += 1
        entry = Entry(self.sequence, subject, body)
        self._keep(Stored(entry, self.loop.now + ttl_s if ttl_s else float("inf")))
        for told in self.on_stored:
            told(self.region, entry)
        for following in self.followings:
            following.offer(entry)
        return entry.sequence

    def forget(self, node: Node) -> None:
        """A node is gone; so are its consumers."""
        self.followings = [one for one in self.followings if one.connection.node is not node]

    def cut(self) -> None:
        """Split the region: side 1 is the minority from now on."""
        self._minority = dict(self._last)
        self._cut_at = self.sequence

    def heal(self) -> None:
        """Join the sides again; what the minority kept is proposed, or thrown away."""
        self._minority = None
        limbo, self._limbo = self._limbo, []
        for propose in limbo:
            self.loop.after(self.delay(), propose)
        for following in self.followings:
            following.offer_missed()

    def stop(self) -> None:
        """All brokers of the region stop; consumers are gone with them."""
        self.down = True
        self._end_consumers()

    def start(self) -> None:
        """They are back, with what they had stored."""
        self.down = False

    def roll_back(self, count: int) -> None:
        """Lose the last messages; what they had replaced is there again."""
        kept = max(0, self.sequence - count)
        self._history = [one for one in self._history if one.entry.sequence <= kept]
        self._last = {one.entry.subject: one for one in self._history}
        self.sequence = kept
        self.counts["rollback"] += 1
        for one in self._last.values():
            self._expire_later(one)
        for told in self.on_lost:
            told(self.region, kept)
        self._end_consumers()

    def recreate(self) -> None:
        """Make the stream anew: empty, and with another creation time."""
        self.roll_back(self.sequence)
        self.counts["recreation"] += 1
        self.created += 1

    def _keep(self, stored: Stored) -> None:
        self._history.append(stored)
        self._last[stored.entry.subject] = stored
        self._expire_later(stored)

    def _expire_later(self, stored: Stored) -> None:
        if stored.expires != float("inf"):
            self.loop.at(stored.expires, self._expire, stored)

    def _expire(self, stored: Stored) -> None:
        if self._last.get(stored.entry.subject) is stored:
            del self._last[stored.entry.subject]  # without a word

    def _propose(self, put: Put, acknowledge: Acknowledge) -> None:
        """Take a put to the replicas, unless it conflicts."""
        subject, expected = put[0], put[2]
        if expected is not None and self._pending[subject]:
            self._conflict(IN_FLIGHT, acknowledge)
        elif not self.store.pending_s:
            self._commit(put, acknowledge)
        elif expected is not None and expected != self._sequence_of(subject):
            self._conflict(WRONG_SEQUENCE, acknowledge)
        else:
            self._pending[subject] += 1
            delay = self.store.pending_s * self.random.random()
            self.loop.after(delay, self._decide, put, acknowledge)

    def _decide(self, put: Put, acknowledge: Acknowledge) -> None:
        """The replicas have a proposal, or their leader died with it."""
        self._pending[put[0]] -= 1
        if self.store.dropped and self.random.random() < self.store.dropped:
            self.counts["proposal dropped"] += 1
            return
        self._commit(put, acknowledge)

    def _conflict(self, code: int, acknowledge: Acknowledge) -> None:
        self.counts[f"conflict {code}"] += 1
        acknowledge(APIError(code=400, err_code=code))

    def _sequence_of(self, subject: str) -> int:
        found = self._last.get(subject)
        return found.entry.sequence if found else 0

    def _commit(self, put: Put, acknowledge: Acknowledge) -> None:
        subject, body, expected, ttl_s = put
        if expected is not None and expected != self._sequence_of(subject):
            self._conflict(WRONG_SEQUENCE, acknowledge)
            return
        sequence = self.append(subject, body, ttl_s)
        if self.ack_s:
            self.loop.after(self.ack_s, acknowledge, sequence)
        else:
            acknowledge(sequence)

    def _end_consumers(self) -> None:
        for following in self.followings:
            following.lose_consumer()
