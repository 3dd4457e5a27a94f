"""The fair queue: no lane starves, bounds hold, and what gave up frees its place."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from kcm_runtime.fair_queue import FIRST, QUANTUM, Bounds, FairQueue, Ticket
from kcm_schemas.codes import Code, KcmError

ROOMY = Bounds(requests=1 << 20, size=1 << 40, running=1 << 20)
COST_MAX = 8 * QUANTUM


def taken(queue: FairQueue[str], now: float = 0.0) -> str | None:
    """The item of the next turn, whose request ends at once."""
    ticket, _ = queue.take(now)
    if ticket is None:
        return None
    queue.leave(ticket)
    return ticket.item


def full(queue: FairQueue[str], *key: str, size: int = 0) -> int:
    """How many requests of a key have room."""
    for count in range(100_000):
        try:
            queue.put(key, "x", cost=1, size=size)
        except KcmError as error:
            assert error.code is Code.BUSY
            assert error.detail
            return count
    raise AssertionError("there is no bound")


def test_two_lanes_take_turns_whatever_each_of_them_asks():
    queue: FairQueue[str] = FairQueue(ROOMY)
    for _ in range(100):
        queue.put(("flood", "t"), "flood", cost=QUANTUM)
    for _ in range(3):
        queue.put(("quiet", "t"), "quiet", cost=QUANTUM)
    order = [taken(queue) for _ in range(103)]
    assert order.index("quiet") <= 4
    assert order[:11].count("quiet") == 3


def test_requests_of_one_key_stay_in_their_order():
    queue: FairQueue[str] = FairQueue(ROOMY)
    for number in range(50):
        queue.put(("a", "t"), str(number), cost=QUANTUM)
    assert [taken(queue) for _ in range(50)] == [str(number) for number in range(50)]


def test_a_tenant_shares_with_the_other_tenants_of_its_application_alone():
    queue: FairQueue[str] = FairQueue(ROOMY)
    for number in range(50):
        for _ in range(20):
            queue.put(("many", f"t{number}"), "many", cost=QUANTUM)
    for _ in range(100):
        queue.put(("one", "t"), "one", cost=QUANTUM)
    order = [taken(queue) for _ in range(200)]
    assert 98 <= order.count("one") <= 100


def test_a_batch_costs_the_turns_that_it_is_worth():
    queue: FairQueue[str] = FairQueue(ROOMY)
    for _ in range(100):
        queue.put(("batches", "t"), "batch", cost=8 * QUANTUM)
    for _ in range(400):
        queue.put(("singles", "t"), "single", cost=QUANTUM)
    order = [taken(queue) for _ in range(180)]
    assert 150 <= order.count("single") <= 170


def test_what_just_came_is_next_and_its_next_one_waits_its_turn():
    queue: FairQueue[str] = FairQueue(ROOMY)
    for lane in range(20):
        for _ in range(20):
            queue.put((f"flood{lane}", "t"), "flood", cost=QUANTUM)
    for _ in range(200):
        assert taken(queue) == "flood"
    queue.put(("quiet", "t"), "quiet", cost=QUANTUM)
    assert "quiet" in [taken(queue), taken(queue)]


def test_lanes_that_come_all_the_time_leave_half_of_the_turns_to_the_others():
    queue: FairQueue[str] = FairQueue(ROOMY)
    for _ in range(1000):
        queue.put(("old", "t"), "old", cost=QUANTUM)
    for _ in range(5):
        taken(queue)
    order = []
    for number in range(200):
        queue.put((f"new{number}", "t"), "new", cost=QUANTUM)
        order.append(taken(queue))
    assert order.count("old") >= 99


def test_one_key_has_a_third_of_the_room_and_those_that_come_find_some():
    queue: FairQueue[str] = FairQueue(Bounds(requests=1200, size=1 << 40, running=1))
    assert full(queue, "a", "t") == 400
    assert full(queue, "a", "u") > 0
    found = [full(queue, f"more{number}", "t") for number in range(10)]
    assert min(found) >= 1
    assert found == sorted(found, reverse=True)
    assert len(queue) <= 1200


def test_bytes_have_a_bound_too():
    queue: FairQueue[str] = FairQueue(Bounds(requests=1 << 20, size=9000, running=1))
    assert full(queue, "a", "t", size=100) == 30
    assert full(queue, "b", "t", size=100) > 0


def test_a_key_that_runs_its_share_is_passed_until_one_of_its_requests_ends():
    queue: FairQueue[str] = FairQueue(Bounds(requests=1 << 20, size=1, running=2))
    for _ in range(5):
        queue.put(("hangs", "t"), "hangs", cost=QUANTUM)
    for _ in range(2):
        queue.put(("well", "t"), "well", cost=QUANTUM)
    running = [queue.take(0.0)[0] for _ in range(4)]
    assert sorted(one.item for one in running if one) == ["hangs", "hangs", "well", "well"]
    assert queue.take(0.0) == (None, [])
    queue.leave(next(one for one in running if one and one.item == "hangs"))
    following, _ = queue.take(0.0)
    assert following is not None
    assert following.item == "hangs"


def test_another_turn_of_what_runs_does_not_count_as_one_more():
    queue: FairQueue[str] = FairQueue(Bounds(requests=1 << 20, size=1, running=1))
    first = queue.put(("a", "t"), "first", cost=QUANTUM)
    queue.put(("a", "t"), "second", cost=QUANTUM)
    assert queue.take(0.0)[0] is first
    assert queue.take(0.0)[0] is None
    queue.again(first, QUANTUM)
    assert queue.take(0.0)[0] is first
    queue.leave(first)
    assert taken(queue) == "second"
    assert (len(queue), queue.lanes, queue.waiting) == (0, 0, 0)


def test_what_ended_while_it_waited_gets_no_turn():
    queue: FairQueue[str] = FairQueue(ROOMY)
    queue.put(("a", "t"), "late", cost=QUANTUM, ends=5.0)
    queue.put(("a", "t"), "in time", cost=QUANTUM, ends=6.0)
    ticket, late = queue.take(5.0)
    assert ticket is not None
    assert ticket.item == "in time"
    assert [one.item for one in late] == ["late"]


@given(st.lists(st.integers(QUANTUM // 4, COST_MAX), min_size=2, max_size=6))
@settings(deadline=None)
def test_no_lane_waits_longer_than_the_others_turns_are_worth(costs: list[int]):
    """However long all lanes wait, their costs differ by a few requests of each."""
    queue: FairQueue[str] = FairQueue(ROOMY)
    used = dict.fromkeys(map(str, range(len(costs))), 0)
    most = max(costs)
    for name, cost in enumerate(costs):
        for _ in range(100):
            queue.put((str(name), "t"), str(name), cost=cost)
    for _ in range(100):
        name = taken(queue)
        assert name is not None
        used[name] += costs[int(name)]
    assert max(used.values()) - min(used.values()) <= (len(costs) + 2) * (most + FIRST)


class Random(RuleBasedStateMachine):
    """Any sequence of steps: the counts agree with a plain list of what is in the queue."""

    def __init__(self) -> None:
        super().__init__()
        self.bounds = Bounds(requests=24, size=600, running=2)
        self.queue: FairQueue[int] = FairQueue(self.bounds)
        self.waiting: list[Ticket[int]] = []
        self.running: list[Ticket[int]] = []
        self.passed: dict[tuple[str, str], int] = {}
        self.now = 0.0
        self.number = 0

    @rule(
        app=st.sampled_from("abc"),
        tenant=st.sampled_from("tu"),
        cost=st.integers(0, COST_MAX),
        size=st.integers(0, 100),
        left=st.sampled_from([1.0, 5.0, 1e9]),
    )
    def comes(self, app, tenant, cost, size, left):
        held = {id(one): one for one in [*self.waiting, *self.running]}.values()
        of_app = [one for one in held if one.lane.above.part == app]
        of_key = [one for one in of_app if one.lane.part == tenant]
        counted = [*held, *of_app, *of_key]
        room = len(counted) < self.bounds.requests
        room &= size + sum(one.size for one in counted) <= self.bounds.size
        self.number += 1
        try:
            ticket = self.queue.put(
                (app, tenant), self.number, cost=cost, size=size, ends=self.now + left
            )
        except KcmError:
            assert not room
            return
        assert room
        self.waiting.append(ticket)

    @rule(by=st.sampled_from([0.0, 1.0, 3.0]))
    def time_passes(self, by):
        self.now += by

    @rule()
    def a_turn(self):
        ticket, late = self.queue.take(self.now)
        for one in late:
            assert one.ends <= self.now
            self.forget(one)
        if ticket is None:
            for one in self.waiting:
                assert one not in self.running
                assert self.of(one.lane) >= self.bounds.running
            return
        assert ticket.ends > self.now
        if ticket not in self.running:
            new = [one for one in self.waiting if one not in self.running]
            assert ticket is next(one for one in new if one.lane is ticket.lane)
            self.running.append(ticket)
        self.waiting.remove(ticket)
        assert self.of(ticket.lane) <= self.bounds.running

    @precondition(lambda self: any(not one.waiting for one in self.running))
    @rule(data=st.data(), cost=st.integers(0, COST_MAX))
    def wants_more(self, data, cost):
        ticket = data.draw(st.sampled_from([one for one in self.running if not one.waiting]))
        self.queue.again(ticket, cost)
        self.waiting.append(ticket)

    @precondition(lambda self: self.waiting or self.running)
    @rule(data=st.data())
    def gives_up_or_ends(self, data):
        ticket = data.draw(st.sampled_from([*self.waiting, *self.running]))
        self.queue.leave(ticket)
        self.queue.leave(ticket)
        self.forget(ticket)

    def forget(self, ticket):
        for place in (self.waiting, self.running):
            if ticket in place:
                place.remove(ticket)

    def of(self, lane):
        return sum(one.lane is lane for one in self.running)

    @invariant()
    def counts_agree(self):
        held = {id(one): one for one in [*self.waiting, *self.running]}
        assert len(self.queue) == len(held) <= self.bounds.requests
        assert sum(one.size for one in held.values()) <= self.bounds.size
        assert self.queue.waiting == len(self.waiting)
        keys = {(one.lane.above.part, one.lane.part) for one in held.values()}
        assert self.queue.lanes == len(keys) + len({app for app, _ in keys})

    def teardown(self):
        for one in [*self.waiting, *self.running]:
            self.queue.leave(one)
        assert (len(self.queue), self.queue.lanes, self.queue.waiting) == (0, 0, 0)


TestRandom = Random.TestCase
TestRandom.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
