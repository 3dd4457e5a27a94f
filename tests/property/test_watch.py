"""No schedule of writes, lags, new consumers and rollbacks makes a kill complete that is not.

A small stream with all that may befall it: incarnations write their records by compare-and-set and
serve from them; messages replace those before on their subject; a rollback takes the end away, puts
back what that had replaced, and ends the consumer. Nobody sends a receipt, so a kill is complete by
silence and absence alone.
"""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from kcm_killswitch.model.completeness import Arrival, Reach, RegionFacts, hold_status
from kcm_killswitch.model.hold_set import HoldState
from kcm_killswitch.model.incarnations import Incarnations
from kcm_killswitch.model.timing import ANSWER_MAX_S, Timing
from kcm_schemas.control import Hold, Lease, Receipt
from kcm_schemas.roster import Role

TIMING = Timing()
CORE, HOLD, OTHER = "core", "hold", "other"
RECORD = HoldState(
    Hold(
        id=bytes(16), salt=bytes(16), scope="tenant", target="acme", cause="operator",
        origin="eu", issued_ms=1, reason="",
    ),
    b"raw",
)  # fmt: skip
OWN = {
    (CORE, CORE.encode().ljust(16)): Arrival(
        Receipt(
            hold_id=bytes(16), instance=CORE, incarnation=CORE.encode().ljust(16), role=Role.CORE,
            region="eu", keys=0, purge_us=0, unkept="", reached=bytes(32),
        ),
        0,
    )
}  # fmt: skip


@dataclass
class Incarnation:
    """An incarnation that serves: where its entry is, when it began, and until when it may serve
    somebody whom the hold kills."""

    name: str
    expected: int = 0
    first: int = 0
    unaware_until: float = 0.0


@dataclass
class World:
    """One stream, its incarnations, and a Core that follows it."""

    now: float = 100.0
    sequence: int = 0
    nonces: int = 0
    history: list[tuple[int, str, Any]] = field(default_factory=list)
    incarnations: list[Incarnation] = field(default_factory=list)
    records: Incarnations = field(default_factory=Incarnations)
    position: int = 0
    consuming: bool = False
    anchor: int = 0
    core: Incarnation = field(default_factory=lambda: Incarnation(CORE))
    place: int = 0
    noted: float = 0.0
    moved: bool = False
    completed: int = 0
    lags: bool = False

    def last(self) -> dict[str, tuple[int, str, Any]]:
        return {one[1]: one for one in self.history}

    def store(self, subject: str, what: Any = None) -> int:
        self.sequence += 1
        self.history.append((self.sequence, subject, what))
        return self.sequence

    def write(self, incarnation: Incarnation) -> bool:
        """An entry replaces the one before; else it serves nothing until it has read all."""
        found = self.last().get(incarnation.name)
        if (found[0] if found else 0) != incarnation.expected:
            incarnation.expected, incarnation.first = (found[0] if found else 0), 1
            incarnation.unaware_until = 0.0
            return False
        self.nonces += 1
        lease = Lease(
            instance=incarnation.name,
            incarnation=incarnation.name.encode().ljust(16),
            role=Role.CORE,
            region="eu",
            nonce=self.nonces.to_bytes(16, "big"),
            first=incarnation.first,
            lease_ms=10_000,
            holds=bytes(32),
            registry=[bytes(16)] * 16,
            roster=1,
            ended=False,
        )
        knows = HOLD in self.last()  # it reads everything below its record before it serves by it
        incarnation.expected = self.store(incarnation.name, lease)
        incarnation.first = incarnation.first or incarnation.expected
        if not knows:
            incarnation.unaware_until = self.now + TIMING.control_lease_s + ANSWER_MAX_S
        return True

    def deliver(self, count: int) -> None:
        if not self.consuming:
            return
        waiting = sorted(one for one in self.last().values() if one[0] > self.position)
        for sequence, subject, what in waiting[:count]:
            self.position = sequence
            self.records.delivered(sequence, self.now)
            if isinstance(what, Lease):
                self.records.take(what, sequence, self.now)
            if subject == HOLD and self.place != sequence:
                self.note(sequence)
            if subject == CORE and sequence == self.core.expected:
                self.anchor = sequence

    def note(self, place: int) -> None:
        self.moved = self.noted > 0
        self.place, self.noted = place, self.now

    def consume(self, behind: int | None = None) -> None:
        behind = self.anchor if behind is None else behind
        if self.sequence < behind:
            behind = self.forget()
        self.consuming, self.position = True, behind
        self.anchor = min(self.anchor, behind)
        if self.place > behind:
            self.place = 0
        self.records.resumed(behind, self.now)

    def forget(self) -> int:
        self.records.doubted(self.now)
        self.anchor = self.place = 0
        return 0

    def kill(self) -> None:
        """The Core writes the hold, unless it knows that it is there."""
        if not self.place:
            found = self.last().get(HOLD)
            self.note(found[0] if found else self.store(HOLD))

    def roll_back(self, count: int) -> None:
        self.sequence = max(0, self.sequence - count)
        self.history = [one for one in self.history if one[0] <= self.sequence]
        self.consuming = False

    def evaluate(self) -> None:
        """Say whether the kill is complete, behind an own record."""
        if not self.consuming:
            return
        before = self.place
        if not self.write(self.core):
            self.forget()
            self.consume(0)
            return
        self.deliver(len(self.history))
        if not before or self.place != before or before >= self.core.expected:
            return
        facts = RegionFacts(
            before,
            self.records.registered(self.now, before),
            self.now - self.noted,
            0.0 if self.moved else self.records.watch.before_s(before, self.noted),
        )
        if hold_status(RECORD, {"eu": facts}, OWN, Reach(), TIMING).complete:
            self.completed += 1
            admission = [one for one in self.incarnations if one.unaware_until > self.now + 1e-6]
            assert not admission, (self, facts)


STEPS = st.one_of(
    st.tuples(st.just("pass"), st.sampled_from([0.1, 2.0, 2.0, 5.0, 9.0, 16.0])),
    st.tuples(st.just("start"), st.just(0)),
    st.tuples(st.just("write"), st.integers(0, 3)),
    st.tuples(st.just("write"), st.integers(0, 3)),
    st.tuples(st.just("other"), st.just(0)),
    st.tuples(st.just("deliver"), st.integers(1, 5)),
    st.tuples(st.just("lag"), st.booleans()),
    st.tuples(st.just("consume"), st.just(0)),
    st.tuples(st.just("roll back"), st.integers(1, 6)),
    st.tuples(st.just("kill"), st.just(0)),
    st.tuples(st.just("evaluate"), st.just(0)),
    st.tuples(st.just("evaluate"), st.just(0)),
)


def run(steps: list[tuple[str, Any]]) -> World:
    """Take the steps in order; a kill that is said to be complete has to be."""
    world = World()
    world.consume(0)
    for step, what in steps:
        match step:
            case "pass":
                world.now += what
            case "start":
                world.incarnations.append(Incarnation(f"gw-{len(world.incarnations)}"))
                world.write(world.incarnations[-1])
            case "write" if world.incarnations:
                world.write(world.incarnations[what % len(world.incarnations)])
            case "other":
                world.store(OTHER)
            case "deliver":
                world.deliver(what)
            case "consume":
                world.consume()
            case "roll back":
                world.roll_back(what)
            case "kill":
                world.kill()
            case "lag":
                world.lags = what
            case "evaluate":
                world.evaluate()
        if not world.lags:
            world.deliver(len(world.history))
    return world


@settings(max_examples=1500, deadline=None)
@given(st.lists(STEPS, min_size=5, max_size=40))
def test_nobody_serves_when_a_kill_is_said_to_be_complete(steps):
    run(steps)


def test_a_kill_is_complete_at_once_when_the_lease_of_the_dead_has_ended():
    """The rule is not vacuous."""
    dead = [("start", 0), ("evaluate", 0), ("pass", 16.0), ("evaluate", 0), ("pass", 0.1)]
    assert run([*dead, ("kill", 0), ("evaluate", 0)]).completed == 1
    late = [("pass", 16.0), ("start", 0), ("evaluate", 0), ("kill", 0), ("evaluate", 0)]
    assert run(late).completed == 0
    assert run([*late, ("pass", 16.0), ("evaluate", 0)]).completed == 1
