"""A fair queue: decides whose request is next, and whether one more has room. It does no I/O.

A key is a path, for example application and tenant. At each level of it the *lanes* take turns, so
that a lane's share depends on the number of lanes that wait, and not on what each of them asks. A
turn is worth ``QUANTUM`` of cost (deficit round robin: what a lane uses too much, it lacks in its
next turns). A lane that just came is first, but such lanes get no more than the others: so a single
request does not wait for a whole round, and no lane is passed over without an end.

*Room.* Each request counts once for the whole queue and once for each lane of its path, from its
arrival to its end. It has room if the sum is below the bound. So a lane may use as much as all
leave free: the more lanes are full, the less each of them has, and one that comes finds room.

*Running.* At most ``running`` requests of a key run at the same time; its other ones wait, and
other keys pass them. A request that waits in the middle of its work does not use the processor: it
takes another turn afterwards (``again``).

A lane exists while it has a request, so keys that do not exist need no memory. Each step takes a
time that depends on the length of the path, and not on the number of lanes or requests: a lane with
debts is passed over, but not more often than its earlier cost divided by ``QUANTUM``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from kcm_schemas.codes import Code, KcmError

QUANTUM: Final = 64 * 1024
"""Cost of one turn: that of a small request (``kcm_runtime.nats.work_slots``)."""

FIRST: Final = 3 * QUANTUM
"""What a lane that just came may cost until it is one of the others: two turns of a small request,
before and after an answer that it waits for."""

NEVER: Final = float("inf")
"""The end of a request that has none."""

Key = tuple[Hashable, ...]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much has room: requests and bytes count for all keys, ``running`` for one key."""

    requests: int
    size: int
    running: int


@dataclass(slots=True, eq=False)
class Ticket(Generic[T]):
    """A request's place; ``item`` is what it is for the caller."""

    lane: _Lane[T]
    item: T
    cost: int
    size: int
    ends: float
    running: bool = False
    waiting: bool = True
    held: bool = True


@dataclass(slots=True, eq=False)
class _Lane(Generic[T]):
    """The requests of one key, or the lanes below a part of it."""

    part: Hashable = None
    above: _Lane[T] | None = None
    lanes: dict[Hashable, _Lane[T]] = field(default_factory=dict)
    fresh: OrderedDict[_Lane[T], None] = field(default_factory=OrderedDict)
    """Lanes that just came, and have a turn."""
    ring: OrderedDict[_Lane[T], None] = field(default_factory=OrderedDict)
    """The other lanes that have something to do."""
    ahead: int = 0
    """What the lanes that just came were granted more than the others, while both waited."""
    new: OrderedDict[Ticket[T], None] = field(default_factory=OrderedDict)
    more: OrderedDict[Ticket[T], None] = field(default_factory=OrderedDict)
    """Requests that run already, and wait for another turn."""
    requests: int = 0
    size: int = 0
    running: int = 0
    credit: int = FIRST
    is_fresh: bool = True
    path: tuple[_Lane[T], ...] = ()
    """This lane and those above it, the whole last."""

    def __post_init__(self) -> None:
        """Note the path."""
        self.path = (self, *(self.above.path if self.above else ()))

    def ready(self, running_max: int) -> bool:
        """Whether it has something to do now."""
        if self.fresh or self.ring or self.more:
            return True
        return bool(self.new) and self.running < running_max

    def front(self) -> _Lane[T]:
        """Return the lane below that has the turn."""
        if self.fresh and (not self.ring or self.ahead <= 0):
            return next(iter(self.fresh))
        while len(self.ring) > 1:
            first = next(iter(self.ring))
            if first.credit > 0:
                return first
            first.credit += QUANTUM
            self.ring.move_to_end(first)
        return next(iter(self.ring))


class FairQueue(Generic[T]):
    """Requests that wait for a turn, and those that run. Time is in the unit of ``ends``."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds: Final = bounds
        self._whole: Final[_Lane[T]] = _Lane()
        self.waiting = 0
        """Requests that wait for a turn."""

    def __len__(self) -> int:
        """Return the number of requests that wait or run."""
        return self._whole.requests

    @property
    def lanes(self) -> int:
        """The number of lanes in memory, over all levels."""
        count, todo = 0, [self._whole]
        while todo:
            below = list(todo.pop().lanes.values())
            count += len(below)
            todo += below
        return count

    def put(self, key: Key, item: T, *, cost: int, size: int = 0, ends: float = NEVER) -> Ticket[T]:
        """Let a request wait; raises ``busy`` if its key has no room for it.

        ``cost`` is for the order of turns, ``size`` the bytes that the request holds.
        """
        self._check_room(key, size)
        lane = self._whole
        for part in key:
            below = lane.lanes.get(part)
            if below is None:
                below = lane.lanes[part] = _Lane(part, lane)
            lane = below
        ticket = Ticket(lane, item, cost, size, ends)
        for one in lane.path:
            one.requests += 1
            one.size += size
        lane.new[ticket] = None
        self.waiting += 1
        self._settle(lane)
        return ticket

    def again(self, ticket: Ticket[T], cost: int) -> None:
        """Let a request that runs wait for another turn; it keeps its place."""
        ticket.cost, ticket.waiting = cost, True
        ticket.lane.more[ticket] = None
        self.waiting += 1
        self._settle(ticket.lane)

    def take(self, now: float, cost_max: float = NEVER) -> tuple[Ticket[T] | None, list[Ticket[T]]]:
        """Return the request that has the next turn, if any, and those that ended meanwhile.

        The first one runs until ``leave``; the others are gone, and cost nothing. A request that
        costs more than ``cost_max`` is not returned; it keeps its place.
        """
        late: list[Ticket[T]] = []
        while self._whole.ready(self._bounds.running):
            lane = self._whole
            while lane.lanes:
                lane = lane.front()
            queue = lane.more or lane.new
            ticket = next(iter(queue))
            if now >= ticket.ends:
                self.leave(ticket)
                late.append(ticket)
                continue
            if ticket.cost > cost_max:
                break
            del queue[ticket]
            self.waiting -= 1
            lane.running += not ticket.running
            ticket.running, ticket.waiting = True, False
            self._charge(lane, ticket.cost)
            self._settle(lane)
            return ticket, late
        return None, late

    def leave(self, ticket: Ticket[T]) -> None:
        """Free the place of a request: it has ended, or gave up. Once is enough."""
        if not ticket.held:
            return
        ticket.held, lane = False, ticket.lane
        if ticket.waiting:
            self.waiting -= 1
            (lane.more if ticket.running else lane.new).pop(ticket)
        lane.running -= ticket.running
        path = lane.path
        for one in path:
            one.requests -= 1
            one.size -= ticket.size
        self._settle(lane)
        for one in path:
            if one.above is not None and not one.requests:
                del one.above.lanes[one.part]

    def _check_room(self, key: Key, size: int) -> None:
        lane = self._whole
        requests, held = lane.requests, size + lane.size
        for part in key:
            if part not in lane.lanes:
                break
            lane = lane.lanes[part]
            requests += lane.requests
            held += lane.size
        if requests >= self._bounds.requests:
            raise KcmError(Code.BUSY, BUSY_REQUESTS)
        if held > self._bounds.size:
            raise KcmError(Code.BUSY, BUSY_SIZE)

    def _charge(self, lane: _Lane[T], cost: int) -> None:
        """Take the cost of a turn from the lane and those above it."""
        for one in lane.path:
            above = one.above
            if above is None:
                return
            one.credit -= cost
            if above.fresh and above.ring:
                above.ahead += cost if one.is_fresh else -cost
            else:
                above.ahead = 0
            if one.is_fresh and one.credit <= 0:
                one.is_fresh = False
                above.fresh.pop(one, None)
                above.ring[one] = None
            if len(above.ring) + len(above.fresh) == 1:
                one.credit = min(max(one.credit, 0), QUANTUM)  # it took a turn from no lane

    def _settle(self, lane: _Lane[T]) -> None:
        """Add the lane, and those above it, where there is something to do, and remove it else."""
        for one in lane.path:
            above = one.above
            if above is None:
                return
            ring = above.fresh if one.is_fresh else above.ring
            if not one.ready(self._bounds.running):
                ring.pop(one, None)
            elif one not in ring:
                ring[one] = None


BUSY_REQUESTS: Final = (
    "this caller has too many requests for the tenant here: wait for answers before you send more,"
    " or send larger batches"
)
"""The text for a key that has as many requests as there is room for."""

BUSY_SIZE: Final = (
    "this caller's requests for the tenant have too many bytes here: wait for answers before you"
    " send more"
)
"""The text for a key that has as many bytes as there is room for."""
