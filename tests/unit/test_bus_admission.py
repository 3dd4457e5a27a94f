"""Work for what is not believed: bounded by source, in turns, and without an end to the stream."""

import asyncio
from types import SimpleNamespace

from kcm_killswitch.replica.entry_expiry import EXPIRES, STAND_BACK_S, EntryExpiry
from kcm_killswitch.replica.verification_budget import (
    FAILURES_AT_ONCE,
    FAILURES_PER_S,
    SOURCES_MAX,
    WAITING_MAX,
    Budgets,
    WaitingStatements,
)
from kcm_runtime.host import Host
from kcm_runtime.nats.ports import Entry
from kcm_runtime.nats.work_slots import Turns
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.roster import Role
from kcm_schemas.signed import STATEMENT_MAX, Kind

from tests.fakes.bus import Clock


def test_a_flood_is_looked_at_as_the_budget_allows():
    looked = []
    waiting = WaitingStatements(lambda raw: looked.append(raw) is not None)
    for number in range(10_000):
        waiting.take("us", b"%d" % number, now=0.0)
    assert len(looked) == FAILURES_AT_ONCE
    assert not waiting.again(now=1.0)
    assert len(looked) == FAILURES_AT_ONCE + int(FAILURES_PER_S)
    # What came last waits still; what was too much was lost, oldest first.
    for second in range(2, 20):
        waiting.again(now=float(second))
    assert looked[-1] == b"9999"
    assert len(looked) == FAILURES_AT_ONCE + WAITING_MAX


def test_one_sources_flood_delays_nobody_else():
    looked = []
    waiting = WaitingStatements(lambda raw: looked.append(raw) or raw == b"true")
    for _ in range(1000):
        waiting.take("us", b"forged", now=0.0)
    assert waiting.take("eu", b"true", now=0.0)
    assert looked[-1] == b"true"


def test_what_is_believed_costs_no_budget():
    looked = []
    waiting = WaitingStatements(lambda raw: looked.append(raw) or True)
    assert all(waiting.take("us", b"true", now=0.0) for _ in range(1000))
    assert len(looked) == 1000


def test_sources_are_bounded_and_the_others_share_a_budget():
    budgets = Budgets()
    for number in range(SOURCES_MAX):
        budgets.failed(f"r{number}", now=0.0)
    for _ in range(FAILURES_AT_ONCE):
        budgets.failed("one more", now=0.0)
    assert budgets.left("another one", now=0.0) == 0
    assert budgets.left("r1", now=0.0) == FAILURES_AT_ONCE - 1
    assert budgets.left("another one", now=1000.0) == FAILURES_AT_ONCE


async def test_the_loop_looks_at_the_network_between_two_pieces_of_work():
    turns, order = Turns(), []
    loop = asyncio.get_running_loop()
    here, there = __import__("socket").socketpair()
    here.setblocking(False)
    loop.add_reader(here, lambda: order.append("kill") if here.recv(9) else None)

    async def work(number):
        await turns.take()
        if number == 2:
            there.send(b"k")  # it lies in the socket from now on
        order.append(number)

    await asyncio.gather(*(work(number) for number in range(50)))
    loop.remove_reader(here)
    here.close()
    there.close()
    assert order.index("kill") <= order.index(2) + 3
    assert [one for one in order if one != "kill"] == list(range(50))


async def test_what_is_urgent_begins_first():
    turns, order = Turns(), []

    async def work(name, *, urgent):
        await turns.take(urgent=urgent)
        order.append(name)

    data = [asyncio.create_task(work("data", urgent=False)) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.gather(*data, work("admin", urgent=True))
    assert order.index("admin") <= 1


async def test_who_gave_up_takes_no_turn():
    turns = Turns()
    gone = asyncio.create_task(turns.take())
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait_for(turns.take(), 5)
    await asyncio.wait_for(turns.take(), 5)


class Stream:
    """Keeps what is put, and fails as often as it is told to."""

    def __init__(self, *failures):
        self.failures, self.puts = list(failures), []
        self.done = asyncio.Event()

    async def put(self, subject, body, *, expected=None, ttl=None):
        if self.failures:
            raise KcmError(self.failures.pop(0))
        self.puts.append((subject, body, expected, ttl))
        self.done.set()
        return 99


def clearing(stream, role=Role.CORE):
    cleared = asyncio.Queue()
    me = SimpleNamespace(role=role)
    host = Host(me, Clock(), Zeros(), lambda kind, **fields: None)
    return EntryExpiry(host, stream=stream, done=cleared.put_nowait), cleared


class Zeros:
    def public(self, size):
        return bytes(size)


async def test_what_nobody_can_believe_expires():
    stream = Stream()
    made, cleared = clearing(stream)
    assert made.clear(Entry(7, "kcm.v1.eu.control.hold.tenant.x", b"junk"))
    assert not made.clear(Entry(8, "kcm.v1.eu.control.lease.x.y", b""))
    assert await asyncio.wait_for(cleared.get(), 5) == 1
    assert stream.puts == [("kcm.v1.eu.control.hold.tenant.x", b"", 7, EXPIRES)]
    assert STAND_BACK_S > 0


async def test_a_lost_race_is_left_alone_and_an_outage_tried_again(monkeypatch):
    monkeypatch.setattr("kcm_killswitch.replica.entry_expiry.RETRY_S", 0.0)
    stream = Stream(Code.UNAVAILABLE, Code.CONFLICT)
    made, cleared = clearing(stream)
    assert made.clear(Entry(7, "a", b"junk"))
    assert await asyncio.wait_for(cleared.get(), 5) == 0
    assert stream.puts == []


async def test_only_a_core_clears():
    stream = Stream()
    made, cleared = clearing(stream, Role.GATEWAY)
    assert not made.clear(Entry(7, "a", b"junk"))
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert stream.puts == []
    assert cleared.empty()


def test_what_waits_is_bounded_in_sources_and_in_bytes():
    waiting = WaitingStatements(lambda _: False)
    most = STATEMENT_MAX[Kind.LIFT]
    for number in range(FAILURES_AT_ONCE + 1):
        waiting.take("us", b"", now=0.0)
        assert waiting.take("eu", bytes(most + 1), now=0.0), number
    assert not waiting.take("us", bytes(most + 1), now=0.0)
    for number in range(1000):
        for _ in range(FAILURES_AT_ONCE):
            waiting.take(f"made-up-{number}", b"", now=0.0)
        waiting.take(f"made-up-{number}", b"", now=0.0)
    assert waiting.sources <= SOURCES_MAX + 1
