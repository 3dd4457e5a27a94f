"""The control stream stores, expires, splits and goes back; its follower keeps the contract."""

import asyncio

import pytest
from kcm_schemas.codes import Code, KcmError

from tests.simulation.log import SimLog
from tests.simulation.loop import SimLoop
from tests.simulation.network import Network
from tests.simulation.stream import ControlStream, Store


class Follower:
    """Writes down what it is told."""

    def __init__(self):
        self.told = []
        self.at = 0

    def anchor(self):
        return self.at

    def resumed(self, behind):
        self.told.append(("resumed", behind))

    def went_back(self):
        self.told.append("went back")

    def receive(self, entry):
        self.told.append((entry.sequence, entry.subject, entry.data))

    @property
    def entries(self):
        return [one for one in self.told if len(one) == 3]


class Rig:
    def __init__(self, **store):
        self.loop = SimLoop(5)
        self.network = Network(self.loop, ["eu"])
        self.stream = ControlStream(self.loop, "eu", Store(**store))
        self.follower = Follower()

    def log(self, side=0, name="a"):
        connection = self.network.connect(self.loop.node(name), "eu", "region", side=side)
        return SimLog(self.stream, connection), connection

    async def followed(self, side=0):
        log, connection = self.log(side)
        following = log.follow(self.follower)
        await following.start()
        return log, connection, following

    def run(self, main):
        try:
            return self.loop.run(main)
        finally:
            self.loop.close()


async def refused(work):
    with pytest.raises(KcmError) as caught:
        await work
    return caught.value.code


def test_the_last_message_of_a_subject_and_compare_and_set():
    rig = Rig()

    async def main():
        log, _ = rig.log()
        assert await log.put("x", b"1", expected=0) == 1
        assert await refused(log.put("x", b"2", expected=0)) is Code.CONFLICT
        assert await log.put("x", b"2", expected=1) == 2
        assert await log.put("y", b"3") == 3
        assert (await log.last("x")).data == b"2"
        assert await log.last("z") is None

    rig.run(main())
    assert [entry.sequence for entry in rig.stream.entries()] == [2, 3]


def test_what_expires_goes_without_a_word():
    rig = Rig()

    async def main():
        log, _, _ = await rig.followed()
        await log.put("x", b"1", ttl="60s")
        await asyncio.sleep(30)
        await log.put("x", b"2", ttl="60s")
        await asyncio.sleep(50)
        assert rig.follower.entries[-1] == (2, "x", b"2")
        await asyncio.sleep(20)

    rig.run(main())
    assert rig.follower.entries[-1] == (2, "x", b"2")
    assert rig.stream.entries() == []


def test_a_follower_gets_everything_before_start_returns_and_then_what_is_new():
    rig = Rig()

    async def main():
        log, _ = rig.log()
        for number in range(5):
            await log.put(f"s{number}", b"")
        _, _, following = await rig.followed()
        assert rig.follower.told[0] == ("resumed", 0)
        assert following.position == 5
        position = await log.put("s0", b"again")
        await following.reached(position)
        assert rig.follower.entries[-1] == (6, "s0", b"again")
        assert await refused(following.reached(7, 0.5)) is Code.UNAVAILABLE

    rig.run(main())


def test_a_restart_ends_the_consumer_and_the_anchor_says_where_to_go_on():
    rig = Rig()

    async def main():
        log, _, _ = await rig.followed()
        for number in range(4):
            await log.put(f"s{number}", b"")
        await asyncio.sleep(1)
        rig.follower.told.clear()
        rig.follower.at = 2
        rig.stream.stop()
        await asyncio.sleep(1)
        assert await refused(log.put("x", b"")) is Code.UNAVAILABLE
        rig.stream.start()
        await asyncio.sleep(10)

    rig.run(main())
    assert rig.follower.told == [("resumed", 2), (3, "s2", b""), (4, "s3", b"")]


def test_what_comes_while_a_connection_is_cut_for_a_moment_is_not_skipped():
    rig = Rig()

    async def main():
        _, connection, _ = await rig.followed()
        connection.disconnect()
        rig.stream.append("a", b"1")
        await asyncio.sleep(0.1)
        connection.reconnect()
        rig.stream.append("b", b"2")
        await asyncio.sleep(0.1)
        rig.follower.at = max((one[0] for one in rig.follower.entries), default=0)
        await asyncio.sleep(3)
        return [one[1] for one in rig.follower.entries]

    assert rig.run(main()) == ["a", "b"]


def test_a_lost_delivery_is_noticed():
    rig = Rig(gap=0.2)

    async def main():
        log, _, _ = await rig.followed()
        for number in range(30):
            await log.put("x", bytes([number]))
            await asyncio.sleep(0.2)
        await asyncio.sleep(10)

    rig.run(main())
    assert rig.stream.counts["delivery lost"] > 2
    assert rig.follower.entries[-1] == (30, "x", bytes([29]))


def test_a_rollback_below_the_anchor_is_noticed_and_sequences_come_again():
    rig = Rig()

    async def main():
        log, _, _ = await rig.followed()
        await log.put("x", b"old")
        for number in range(4):
            await log.put("x", bytes([number]))
        await asyncio.sleep(1)
        rig.follower.told.clear()
        rig.follower.at = 5
        rig.stream.roll_back(4)
        assert (await log.last("x")).data == b"old"
        assert await log.put("y", b"new") == 2
        await asyncio.sleep(10)

    rig.run(main())
    assert rig.follower.told == [
        "went back", ("resumed", 0), (1, "x", b"old"), (2, "y", b"new")
    ]  # fmt: skip


def test_a_recreated_stream_is_noticed_by_its_creation_time():
    rig = Rig()

    async def main():
        log, _, _ = await rig.followed()
        await log.put("x", b"1")
        await asyncio.sleep(1)
        rig.stream.recreate()
        for number in range(3):
            await log.put("y", bytes([number]))
        rig.follower.told.clear()
        rig.follower.at = 1
        await asyncio.sleep(10)

    rig.run(main())
    assert rig.follower.told == ["went back", ("resumed", 0), (3, "y", b"\x02")]


def test_a_minority_lies():
    rig = Rig()

    async def main():
        log, _, _ = await rig.followed(side=1)
        major, _ = rig.log(side=0)
        await log.put("x", b"before")
        await asyncio.sleep(1)
        rig.stream.cut()
        assert await major.put("x", b"after") == 2
        assert (await log.last("x")).data == b"before"
        for _ in range(10):
            assert await refused(log.put("y", b"")) is Code.UNAVAILABLE
        assert rig.follower.entries[-1] == (1, "x", b"before")
        assert ("resumed", 0) not in rig.follower.told[1:]
        rig.stream.heal()
        await asyncio.sleep(1)

    rig.run(main())
    assert (2, "x", b"after") in rig.follower.entries
    assert len(rig.follower.entries) > 2  # some of what nobody acknowledged was stored all the same


@pytest.mark.parametrize("how", ["unheard", "late"])
def test_a_put_that_nobody_acknowledged_may_be_stored(how):
    rig = Rig(**{how: 1.0})

    async def main():
        log, _ = rig.log()
        assert await refused(log.put("x", b"1", expected=0)) is Code.UNAVAILABLE
        await asyncio.sleep(100)

    rig.stream.store.late_s = 60.0
    rig.run(main())
    assert [entry.data for entry in rig.stream.entries()] == [b"1"]


def test_a_paused_follower_gets_everything_when_it_goes_on():
    rig = Rig()

    async def main():
        log, connection, _ = await rig.followed()
        rig.loop.pause(connection.node)
        other, _ = rig.log(name="b")
        for number in range(5):
            await other.put("x", bytes([number]))
        assert rig.follower.entries == []
        rig.loop.resume(connection.node)
        await asyncio.sleep(1)
        assert log is not None

    rig.run(main())
    assert [one[2] for one in rig.follower.entries] == [bytes([n]) for n in range(5)]


def test_what_is_on_its_way_conflicts_and_cannot_be_read():
    rig = Rig(pending_s=1.0)

    async def main():
        log, _ = rig.log()
        first = asyncio.get_running_loop().create_task(log.put("x", b"1", expected=0))
        await asyncio.sleep(0.01)
        assert await refused(log.put("x", b"2", expected=0)) is Code.CONFLICT
        assert await log.last("x") is None
        assert await first == 1
        assert rig.stream.counts["conflict 10164"] == 1

    rig.run(main())


def test_a_proposal_that_is_dropped_overtook_nobody():
    rig = Rig(pending_s=0.1, dropped=1.0)

    async def main():
        log, _ = rig.log()
        assert await refused(log.put("x", b"1", expected=0)) is Code.UNAVAILABLE
        rig.stream.store = Store()
        assert await log.put("x", b"2", expected=0) == 1

    rig.run(main())


def test_a_put_that_arrives_twice_is_stored_and_its_answer_is_a_conflict():
    rig = Rig(again=1.0)

    async def main():
        log, _ = rig.log()
        assert await refused(log.put("x", b"1", expected=0)) is Code.CONFLICT
        assert (await log.last("x")).data == b"1"
        assert await log.put("y", b"2") == 3

    rig.run(main())
